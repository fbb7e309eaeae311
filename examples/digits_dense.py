"""Distil, prune and export a small classifier of handwritten digits."""

import keras
from sklearn.datasets import load_digits

import keras_kddp as kddp

x, y = load_digits(return_X_y=True)
x = (x / 16).astype("float32")
train, test = slice(450, None), slice(0, 450)

loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
dense = keras.layers.Dense
teacher = keras.Sequential(
    [keras.Input((64,)), dense(512, "relu"), dense(512, "relu"), dense(10)]
)
teacher.compile("adam", loss, metrics=["accuracy"])
teacher.fit(x[train], y[train], epochs=20, verbose=0)

student = keras.Sequential([keras.Input((64,)), dense(256, "relu"), dense(10)])
distiller = kddp.Distiller(teacher, kddp.prepare(student, l1=0.1))
distiller.compile("adam", loss, metrics=["accuracy"])
pruning = kddp.DynamicPruning(verbose=1)
distiller.fit(x[train], y[train], epochs=60, verbose=0, callbacks=[pruning])

compact = kddp.finalize(distiller.student)  # plain Keras, smaller
artifact = kddp.export.to_tflite(compact, "student_float32.tflite")
print(kddp.export.verify(compact, artifact, x[test], y[test]))
