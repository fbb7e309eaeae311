"""Time of a removal beside Keras' own `from_config`, by number of layers.

The model is a chain of residual blocks (Dense, BatchNormalization, ReLU,
Dense, Add). A removal reads the graph, plans, makes the model anew from its
config and copies the weights; `from_config` makes it alone. Both run in turns,
and the fastest of each counts: what slows a run down is the machine.
"""

import argparse
import time

import keras

import keras_kddp as kddp

LAYERS = (50, 200, 800, 3000)


def chain(layers: int) -> keras.Model:
    """Returns a model of about so many layers."""
    x = inputs = keras.Input((8,))
    x = keras.layers.Dense(8, name="dense")(x)
    for index in range((layers - 3) // 5):
        y = keras.layers.Dense(8, name=f"wide{index}")(x)
        y = keras.layers.BatchNormalization(name=f"norm{index}")(y)
        y = keras.layers.ReLU(name=f"relu{index}")(y)
        y = keras.layers.Dense(8, name=f"narrow{index}")(y)
        x = keras.layers.Add(name=f"add{index}")([x, y])
    return keras.Model(inputs, keras.layers.Dense(2, name="head")(x))


def seconds(layers: int, repetitions: int) -> tuple[float, float]:
    """Returns the seconds of `from_config` and of a removal."""
    model = chain(layers)
    units = {
        layer.name: [1, 5]
        for layer in model.layers
        if layer.name.startswith(("wide", "narrow", "dense"))
    }
    plain, removal = [], []
    for _ in range(repetitions):
        start = time.perf_counter()
        type(model).from_config(model.get_config())
        between = time.perf_counter()
        kddp.remove_units(model, units)
        end = time.perf_counter()
        plain.append(between - start)
        removal.append(end - between)
    return min(plain), min(removal)


def main() -> None:
    """Prints a line a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, nargs="+", default=LAYERS)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    print("layers  from_config  removal  ratio")
    for layers in options.layers:
        plain, removal = seconds(layers, options.repetitions)
        print(
            f"{layers:6}  {plain:9.2f} s {removal:6.2f} s  "
            f"{removal / plain:5.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
