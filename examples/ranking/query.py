"""Asks the served model by NVIDIA's unmodified Triton client: AUC on offers it has not seen, and the best
articles for one buyer.

    python query.py MODEL [--url 127.0.0.1:8080]
"""

import argparse

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import np_to_triton_dtype

import data


def ask(client, model, features):
    inputs = []
    for name, values in features.items():
        tensor = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    answer = client.infer(model, inputs)
    return answer.as_numpy(answer.get_response()["outputs"][0]["name"]).reshape(-1)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--url", default="127.0.0.1:8080")
    flags = parser.parse_args()
    client = triton.InferenceServerClient(flags.url, network_timeout=60.0)
    trade = data.Trade()
    features, labels = trade.offers(50_000, seed=2)
    scores = np.concatenate([ask(client, flags.model, {k: v[i:i + 2000] for k, v in features.items()})
                             for i in range(0, len(labels), 2000)])
    print(f"AUC as served: {data.auc(labels, scores):.4f}")
    buyer, articles = 42, np.arange(2000)
    scores = ask(client, flags.model, trade.features(np.full(len(articles), buyer), articles))
    best = np.argsort(-scores)[:5]
    print(f"best articles for buyer {buyer}: " + ", ".join(f"{a} ({scores[a]:.3f})" for a in best))


if __name__ == "__main__":
    main()
