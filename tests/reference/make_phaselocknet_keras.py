"""Make the phaselocknet_keras_* files of data/: two small trained Keras models, their checkpoints and their logits.

Not run by the tests: it needs ``tensorflow-cpu==2.21.0`` and ``tf_keras==2.21.0``, which psysim does not. The models
have the layers of the published networks, word/voice and localisation, in Keras' own implementation.

    python make_phaselocknet_keras.py FOLDER
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras as keras

L = keras.layers


def padded_frequency(x: tf.Tensor, kernel: int, stride: int = 1) -> tf.Tensor:
    """Pad frequency as TensorFlow's SAME does, and not time."""
    n = x.shape[1]
    total = max(0, (-(-n // stride) - 1) * stride + kernel - n)
    return L.ZeroPadding2D(((total // 2, total - total // 2), (0, 0)))(x)


def conv(x: tf.Tensor, filters: int, kernel: tuple[int, int], groups: int = 1) -> tf.Tensor:
    return L.Conv2D(filters, kernel, padding="valid", groups=groups)(padded_frequency(x, kernel[0]))


def hann_pool(x: tf.Tensor, size: tuple[int, int], strides: tuple[int, int]) -> tf.Tensor:
    windows = [np.hanning(n) if n > 1 else np.ones(1) for n in size]
    kernel = tf.constant(np.outer(*windows)[:, :, None, None] ** 0.5, tf.float32)
    x = padded_frequency(x, size[0], strides[0])

    def pool(v: tf.Tensor) -> tf.Tensor:
        channels = [v[..., i : i + 1] for i in range(v.shape[-1])]
        return tf.concat([tf.nn.conv2d(c, kernel, [1, *strides, 1], "VALID") for c in channels], -1)

    return L.Lambda(pool)(x)


def word() -> keras.Model:
    inputs = L.Input((12, 80, 3))
    x = L.LayerNormalization(axis=[1, 2, 3], center=False, scale=False)(inputs)
    x = L.LayerNormalization()(hann_pool(L.ReLU()(conv(x, 6, (2, 9))), (1, 16), (1, 4)))
    x = L.LayerNormalization()(hann_pool(L.ReLU()(conv(x, 8, (5, 4))), (8, 4), (2, 4)))
    x = L.LayerNormalization()(L.ReLU()(L.Dense(10)(L.Flatten()(x))))
    return with_heads(inputs, L.Dropout(0.5)(x), {"label_speaker_int": 5, "label_word_int": 7})


def localisation() -> keras.Model:
    inputs = L.Input((10, 60, 6))
    x = L.BatchNormalization()(L.ReLU()(L.MaxPool2D((1, 4))(conv(inputs, 8, (2, 8), groups=2))))
    x = L.BatchNormalization()(L.ReLU()(L.MaxPool2D((2, 2))(conv(x, 8, (3, 4)))))
    x = L.BatchNormalization()(L.ReLU()(L.Dense(9)(L.Flatten()(x))))
    return with_heads(inputs, L.Dropout(0.5)(x), {"label_loc_int": 11})


def with_heads(inputs: tf.Tensor, x: tf.Tensor, heads: dict[str, int]) -> keras.Model:
    return keras.Model(inputs, {head: L.Dense(n, name=head)(x) for head, n in heads.items()})


def make(kind: str, build: Callable[[], keras.Model], seed: int, folder: Path) -> None:
    """Train a little, so that the optimiser has slots and batch normalisation its statistics; then add noise."""
    tf.random.set_seed(seed)
    rng = np.random.default_rng(seed)
    model = build()
    x = rng.poisson(1.5, (16, *model.input_shape[1:])).astype(np.float32)
    y = {head: rng.integers(0, shape[-1], 16) for head, shape in model.output_shape.items()}
    loss = {head: keras.losses.SparseCategoricalCrossentropy(from_logits=True) for head in y}
    model.compile(keras.optimizers.legacy.Adam(1e-2), loss=loss)
    model.fit(x, y, epochs=30, batch_size=8, verbose=0)
    for weight in model.weights:
        noise = rng.standard_normal(weight.shape).astype(np.float32)
        weight.assign(weight + (0.0 if "variance" in weight.name else 0.05) * noise)
    prefix = folder / f"phaselocknet_keras_{kind}"
    tf.train.Checkpoint(model=model, optimizer=model.optimizer).write(str(prefix))
    logits = {f"logits:{head}": value.numpy() for head, value in model(x[:3], training=False).items()}
    np.savez_compressed(f"{prefix}.npz", input=np.moveaxis(x[:3], -1, 1), **logits)


if __name__ == "__main__":
    make("word", word, 1, Path(sys.argv[1]))
    make("loc", localisation, 2, Path(sys.argv[1]))
