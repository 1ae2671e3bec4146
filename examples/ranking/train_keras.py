"""Trains the example's model in Keras and exports it: python train_keras.py offers_saved_model"""

import sys

import keras
from keras import layers

import data


def build(width=16):
    one = {name: keras.Input((), dtype="int64", name=name) for name in ("buyer", "line", "article", "category")}
    history = keras.Input((data.HISTORY,), dtype="int64", name="history")
    numbers = keras.Input((2,), name="numbers")
    sizes = {"buyer": data.BUYERS, "line": data.LINES, "article": data.ARTICLES, "category": data.CATEGORIES}
    fields = [layers.Embedding(sizes[name], width, name=f"{name}_table")(x) for name, x in one.items()]
    bought = layers.Embedding(data.ARTICLES, width, name="history_table")(history)
    fields.append(layers.GlobalAveragePooling1D()(bought))
    fields.append(layers.Dense(width)(numbers))
    crossed = layers.Concatenate()([layers.Dot(1)([fields[i], fields[j]]) for i in range(6) for j in range(i)])
    x = layers.Concatenate()([*fields, crossed])
    for size in (128, 64):
        x = layers.Dense(size, activation="relu")(x)
    taken = layers.Flatten(name="taken")(layers.Dense(1, activation="sigmoid")(x))
    return keras.Model({**one, "history": history, "numbers": numbers}, taken)


def train(trade, offers=400_000):
    keras.utils.set_random_seed(1)
    features, taken = trade.offers(offers, seed=1)
    model = build()
    model.compile(keras.optimizers.Adam(3e-3), loss="binary_crossentropy")
    model.fit(features, taken, batch_size=2048, epochs=2, verbose=2)
    return model


def main():
    trade = data.Trade()
    model = train(trade)
    held_out, labels = trade.offers(50_000, seed=2)
    print(f"AUC in Keras: {data.auc(labels, model.predict(held_out, batch_size=4096, verbose=0)[:, 0]):.4f}")
    model.export(sys.argv[1])


if __name__ == "__main__":
    main()
