"""simulate and compare: chips that need not exist, models without weights, and what they print."""

import json
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

from conftest import BINARY, ROOT

SMALL = ["--model", "qwen3-0.6b", "--input", "64", "--output", "8", "--requests", "6"]
USERS = [*SMALL, "--concurrency", "3"]


def millpower(*args):
    return subprocess.run([BINARY, *args], capture_output=True, text=True, timeout=120)


def output(*args):
    done = millpower(*args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def simulated(*flags):
    return json.loads(output("simulate", *USERS, "--json", *flags))


def refused(*args):
    """The message of a command that must fail with our own error, not a crash."""
    done = millpower(*args)
    assert done.returncode in (1, 2), (done.returncode, done.stderr)
    return done.stderr + done.stdout


def test_simulate_prints_a_table():
    table = output("simulate", *USERS, "--chip", "h100", "--opcodes")
    for line in ("TTFT p99", "TPOT p50", "output tok/s", "bottleneck", "KV memory", "TPP of a chip", "matmul"):
        assert line in table, table


def test_json_has_what_a_planner_needs():
    planned = simulated("--chip", "h100")
    report = planned["report"]
    assert report["requests"] == 6
    assert report["input_tokens"] == 6 * 64 and report["output_tokens"] == 6 * 8
    for latency in ("ttft_s", "tpot_s", "end_to_end_s"):
        assert 0 < report[latency]["p50"] <= report[latency]["p90"] <= report[latency]["p99"]
    assert all(0 <= part <= 1.0001 for part in report["utilisation"].values())
    assert report["joules_per_output_token"] > 0 and report["usd_per_million_output_tokens"] > 0
    fits = planned["fits"]
    assert fits["weight_bytes"] + fits["kv_pages"] * fits["kv_page_bytes"] < fits["memory_bytes"]
    # A chip with assumed figures gives a range, the bad end first.
    assert planned["assumed"]
    assert planned["low"]["output_tokens_per_s"] <= report["output_tokens_per_s"]
    assert report["output_tokens_per_s"] <= planned["high"]["output_tokens_per_s"]


def test_the_same_seed_gives_the_same_json():
    flags = ["simulate", *SMALL, "--rate", "50", "--json", "--seed"]
    first, again, other = (json.loads(output(*flags, seed)) for seed in ("7", "7", "8"))
    for planned in (first, again, other):
        assert planned.pop("host_seconds") >= 0
    assert first == again
    assert first["report"]["end_to_end_s"] != other["report"]["end_to_end_s"]


def test_more_users_are_served_faster_together_and_slower_each():
    one, many = (json.loads(output("simulate", *SMALL[:-1], "32", "--concurrency", users, "--json"))["report"]
                 for users in ("1", "16"))
    assert many["output_tokens_per_s"] > one["output_tokens_per_s"]
    assert many["tpot_s"]["p50"] >= one["tpot_s"]["p50"]


def test_a_file_of_requests_with_shared_prefixes(tmp_path):
    trace = tmp_path / "requests.csv"
    rows = "".join(f"{i},96,4,0,64\n" for i in range(4))
    trace.write_text("at_s,input,output,prefix_group,prefix_tokens\n" + rows)
    flags = ["simulate", "--model", "qwen3-0.6b", "--requests-file", str(trace), "--json"]
    assert json.loads(output(*flags))["report"]["cached_tokens"] > 0
    assert json.loads(output(*flags, "--no-prefix-cache"))["report"]["cached_tokens"] == 0
    trace.write_text("at_s,input,output\n0,x,4\n")
    assert f"{trace}:2: input is 'x'" in refused(*flags)


@pytest.mark.parametrize("flags, expected", [
    (["--chip", "no-such-chip"], "h100"),  # lists the names
    (["--model", "no-such-model"], "qwen3-0.6b"),
    (["--slo", "ttft_p98_s=1"], "ttft_p99"),
    (["--experts", "lopsided"], "balanced"),
    (["--concurrency", "0"], "concurrency"),
    (["--rate", "1"], "exclude each other"),
    (["--chips", "65"], "chips"),
])
def test_wrong_flags_say_what_is_expected(flags, expected):
    given = dict(zip(USERS[::2], USERS[1::2])) | dict([flags])
    assert expected in refused("simulate", *(word for pair in given.items() for word in pair))


def test_a_bad_chip_file_names_line_key_and_expectation(tmp_path):
    chip = tmp_path / "wrong.toml"
    lines = (ROOT / "chips" / "h100.toml").read_text().splitlines()
    line = next(i for i, text in enumerate(lines) if text.startswith("price_usd_per_hour"))
    lines[line] = 'price_usd_per_hour = "cheap"'
    chip.write_text("\n".join(lines) + "\n")
    message = refused("simulate", *USERS, "--chip", str(chip))
    assert f"wrong.toml:{line + 1}" in message and "price_usd_per_hour" in message and "expected" in message
    chip.write_text("chip = [")
    assert "wrong.toml:1" in refused("simulate", *USERS, "--chip", str(chip))


def test_what_does_not_fit_shows_the_arithmetic():
    message = refused("simulate", "--model", "qwen3-235b-a22b", "--chip", "h100", "--concurrency", "1")
    assert "does not fit" in message and "GB of weights" in message and "h100" in message


def test_a_trace_is_chromes(tmp_path):
    path = tmp_path / "trace.json"
    output("simulate", *USERS, "--chip", "h100", "--trace", str(path))
    events = json.loads(path.read_text())
    names = {event["name"] for event in events}
    assert {"thread_name", "matmul", "attention"} <= names
    for event in events:
        assert event["ph"] in ("M", "X") and isinstance(event["pid"], int) and isinstance(event["tid"], int)
        if event["ph"] == "X":
            assert event["ts"] >= 0 and event["dur"] >= 0


def test_a_pipeline_is_cut_into_stages(tmp_path):
    flags = ["--chip", "h100", "--chips", "4"]
    whole, cut = simulated(*flags), simulated(*flags, "--stages", "2")
    assert cut["report"]["output_tokens"] == whole["report"]["output_tokens"]
    # What crosses the links is rows from stage to stage, and sums of half as many chips.
    assert cut["report"]["utilisation"]["link"] < whole["report"]["utilisation"]["link"]
    assert "3 chips cannot be split into 2 stages" in refused(
        "simulate", *USERS, "--chips", "3", "--stages", "2")
    path = tmp_path / "trace.json"
    output("simulate", *USERS, *flags, "--stages", "2", "--trace", str(path))
    events = json.loads(path.read_text())
    assert {event["pid"] for event in events if event["ph"] == "X"} == {1, 2}


def test_experts_as_they_were_recorded(tmp_path):
    text, recorded = tmp_path / "text.txt", tmp_path / "experts.json"
    text.write_text("the quick brown fox jumps over the lazy dog. " * 20)
    moe = str(ROOT / "tests" / "golden" / "tiny-moe")
    scored = json.loads(output("perplexity", moe, str(text), "--context", "64", "--json",
                               "--record-experts", str(recorded)))
    layers = json.loads(recorded.read_text())["experts"]
    assert len(layers) == 2 and all(sum(rows) >= 2 * scored["scored_tokens"] for rows in layers)
    model = ["simulate", "--model", "qwen3-30b-a3b", "--input", "16", "--output", "8", "--concurrency", "8",
             "--json", "--experts"]
    assert "6 experts a layer, the model has 128" in refused(*model, str(recorded))
    recorded.write_text(json.dumps({"experts": [[1000] * 8 + [1] * 120]}))
    few, many = (json.loads(output(*model, experts))["report"] for experts in (str(recorded), "balanced"))
    assert few["tpot_s"]["p50"] < many["tpot_s"]["p50"]
    assert "no experts to record" in refused("perplexity", str(ROOT / "models" / "demo"), str(text),
                                             "--record-experts", str(recorded))


def test_slo_finds_a_number_of_chips():
    easy = simulated("--chip", "h100", "--slo", "ttft_p99_s=10")
    assert easy["chips"] == 1 and easy["tried"][-1]["meets"]
    never = simulated("--chip", "h100", "--max-chips", "4", "--slo", "tpot_p50_ms=0.000001")
    assert never["chips"] is None and never["tried"]
    assert not any(tried["meets"] for tried in never["tried"])
    # All that four chips can be: replicas, and groups.
    layouts = {(tried["replicas"], tried["chips_per_replica"]) for tried in never["tried"]}
    assert {(1, 1), (2, 1), (1, 2), (1, 4)} <= layouts and all(n * size <= 4 for n, size in layouts)
    table = output("simulate", *USERS, "--chip", "h100", "--max-chips", "4", "--slo", "tpot_p50_ms=0.000001")
    assert "no layout of up to 4 chips meets tpot_p50_ms=0.000001" in table


def test_replicas_share_a_load_that_is_too_much_for_one():
    load = ["simulate", "--model", "qwen3-0.6b", "--input", "2048", "--output", "16", "--rate", "200", "--requests",
            "200", "--chip", "h100", "--json"]
    one, four = (json.loads(output(*load, "--replicas", n)) for n in ("1", "4"))
    assert (four["chips"], four["replicas"], four["chips_per_replica"]) == (4, 4, 1)
    assert four["report"]["requests"] == one["report"]["requests"] == 200
    assert four["report"]["end_to_end_s"]["p99"] < one["report"]["end_to_end_s"]["p99"]
    bound = (one["report"]["end_to_end_s"]["p99"] + four["report"]["end_to_end_s"]["p99"]) / 2
    found = json.loads(output(*load, "--slo", f"e2e_p99_s={bound}"))
    assert 1 < found["chips"] <= 4 and found["usd_per_hour"] > 0
    best = found["replicas"], found["chips_per_replica"]
    tried = {(t["replicas"], t["chips_per_replica"]): t for t in found["tried"]}
    assert tried[best]["meets"] and not tried[1, 1]["meets"] and tried[1, 1]["missed"]
    assert found["chips_high"] <= found["chips"] <= (found["chips_low"] or 64)


QUERIES = ["--model", "dlrm-kaggle", "--items", "64", "--requests", "300"]


def test_a_recommender_is_simulated():
    flags = ["simulate", *QUERIES, "--rate", "3000", "--chip", "h100", "--opcodes"]
    table = output(*flags)
    for line in ("latency p99", "queries/s", "items/s", "items/launch", "bottleneck", "mgCO2e/query", "$/M queries",
                 "$/M items", "embedding_bag"):
        assert line in table, table
    assert "TTFT" not in table and "KV memory" not in table
    planned = json.loads(output(*flags, "--json"))
    report = planned["report"]
    assert report["requests"] == 300 and report["items"] == 300 * 64
    assert 0 < report["latency_s"]["p50"] <= report["latency_s"]["p90"] <= report["latency_s"]["p99"]
    assert all(0 <= part <= 1.0001 for part in report["utilisation"].values())
    assert report["joules_per_query"] > 0 and report["usd_per_million_items"] > 0
    assert planned["low"]["latency_s"]["p99"] >= report["latency_s"]["p99"] >= planned["high"]["latency_s"]["p99"]
    assert planned["fits"]["weight_bytes"] > 33_762_577 * 16 * 4  # the tables
    again = json.loads(output(*flags, "--json"))
    assert planned.pop("host_seconds") >= 0 and again.pop("host_seconds") >= 0
    assert planned == again


def test_queries_wait_for_company_as_long_as_allowed():
    flags = ["simulate", *QUERIES, "--rate", "3000", "--chip", "h100", "--json"]
    now, later = (json.loads(output(*flags, "--max-queue-delay-us", delay))["report"] for delay in ("0", "5000"))
    assert later["items_per_launch"] > 4 * now["items_per_launch"]
    assert 0.005 < later["latency_s"]["p90"] < 0.02


def test_tables_that_do_not_fit_show_the_arithmetic():
    flags = ["simulate", "--model", "dcnv2-mlperf", "--requests", "50", "--concurrency", "2", "--chip", "h100"]
    message = refused(*flags)
    assert "does not fit" in message and "104." in message and "GB of weights" in message
    assert "latency p99" in output(*flags, "--tables", "bf16")
    assert "tables are not split" in refused(*flags, "--chips", "2", "--tables", "int8")


def test_a_file_of_queries(tmp_path):
    trace = tmp_path / "queries.csv"
    trace.write_text("at_s,items\n0.5,10\n0,700\n0.001,20\n")
    flags = ["simulate", "--model", "dlrm-kaggle", "--requests-file", str(trace), "--json"]
    report = json.loads(output(*flags))["report"]
    assert report["requests"] == 3 and report["items"] == 730 and 0.5 < report["seconds"] < 0.6
    assert "at most 512" in refused(*flags, "--max-batch", "512")
    trace.write_text("at_s,input,output\n0,1,4\n")
    assert f"{trace}:1: has no column 'items'" in refused(*flags)
    trace.write_text("at_s,items\n0,many\n")
    assert f"{trace}:2: items is 'many'" in refused(*flags)


def test_how_many_chips_queries_need():
    flags = ["simulate", *QUERIES[:-1], "6000", "--chip", "a100", "--rate", "300000", "--json", "--slo"]
    found = json.loads(output(*flags, "p99_ms=2"))
    assert found["chips"] == found["replicas"] > 1 and found["chips_per_replica"] == 1
    assert found["tried"][0]["missed"]
    assert json.loads(output(*flags, "p99_ms=0.001", "--max-chips", "3"))["chips"] is None
    assert "p50, p90, p99" in refused(*flags, "ttft_p99_s=1")


def test_a_recommender_from_a_file(tmp_path):
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node
    table = onnx.TensorProto(name="table", data_type=onnx.TensorProto.FLOAT, dims=[100000, 32],
                             data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "table.data"), ("offset", "0"), ("length", str(100000 * 32 * 4))):
        table.external_data.add(key=key, value=value)
    one = onnx.numpy_helper.from_array(__import__("numpy").array([1], "int64"), "one")
    graph = onnx.helper.make_graph(
        [node("Gather", ["table", "ids"], ["rows"], axis=0), node("ReduceSum", ["rows", "one"], ["sum"], keepdims=0)],
        "small", [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["batch", 8])],
        [onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, ["batch", 32])], [table, one])
    with open(tmp_path / "table.data", "wb") as data:
        data.truncate(100000 * 32 * 4)  # nothing is in it, and nobody reads it
    path = tmp_path / "small.onnx"
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)],
                                            ir_version=9).SerializeToString())
    flags = ["simulate", "--model", str(path), "--requests", "20", "--items", "100", "--json"]
    planned = json.loads(output(*flags))
    assert planned["report"]["items"] == 2000 and planned["fits"]["weight_bytes"] >= 100000 * 32 * 4
    trace = tmp_path / "trace.json"
    output(*flags, "--trace", str(trace))
    assert "embedding_bag" in {event["name"] for event in json.loads(trace.read_text())}


COMPARE = ["compare", *USERS, "--chips", "h100,millpower-1x2,a100"]


def test_compare_puts_chips_side_by_side():
    table = output(*COMPARE)
    header = table.splitlines()[0]
    assert header.index("1 x h100") < header.index("2 x millpower-1") < header.index("1 x a100")
    compared = json.loads(output(*COMPARE, "--json"))
    assert [chip["label"] for chip in compared["chips"]] == ["h100", "millpower-1x2", "a100"]
    for chip in compared["chips"]:
        assert chip["total_processing_performance"] > 0
        assert chip["export_rule"] in ("3A090.a", "3A090.b", "none", "unknown")
        assert chip["kwh_per_million_output_tokens"] > 0 and chip["usd_per_hour"] > 0
    # A chip alone has the figures that it has beside others.
    alone = simulated("--chip", "h100")
    assert compared["chips"][0]["report"] == alone["report"]


def test_compare_shows_what_does_not_fit_in_its_column():
    flags = ["compare", "--model", "qwen3-32b", "--input", "16", "--output", "2", "--requests", "1", "--chips",
             "h100,tpu-v5e,mlu370-x8"]
    compared = json.loads(output(*flags, "--json"))["chips"]
    assert "report" in compared[0]
    assert "does not fit" in compared[1]["error"] and "tpu-v5e" in compared[1]["error"]
    assert compared[2]["chips"] == 1 and compared[2]["chip"] == "mlu370-x8"
    table = output(*flags)
    assert "why not" in table and "does not fit" in table
    assert "no-such" in refused(*flags[:-1], "h100,no-such")


def test_the_plot_is_well_formed_and_inside_its_axes(tmp_path):
    path = tmp_path / "plot.svg"
    compared = json.loads(output(*COMPARE, "--svg", str(path), "--sweep", "1,4", "--json"))
    assert [len(line["points"]) for line in compared["sweep"]] == [2, 2, 2]
    root = ElementTree.parse(path).getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == space + "svg" and not root.findall(f".//{space}script")
    frame = next(rect for rect in root.findall(space + "rect") if rect.get("class") == "frame")
    x, y, width, height = (float(frame.get(key)) for key in ("x", "y", "width", "height"))
    circles = root.findall(space + "circle")
    assert len(circles) == 6
    for circle in circles:
        assert x < float(circle.get("cx")) < x + width
        assert y < float(circle.get("cy")) < y + height
    texts = [text.text for text in root.iter(space + "text")]
    assert {"h100", "millpower-1x2", "a100", "output tokens a second"} <= set(texts)
    # More tokens a second are drawn higher, more milliseconds further right.
    places = [(float(c.get("cx")), -float(c.get("cy"))) for c in circles]
    points = [(p["tpot_p50_ms"], p["output_tokens_per_s"]) for line in compared["sweep"] for p in line["points"]]
    for axis in (0, 1):
        order = sorted(range(6), key=lambda i: points[i][axis])
        assert all(places[a][axis] <= places[b][axis] + 0.11 for a, b in zip(order, order[1:]))
    assert "cannot write" in refused(*COMPARE, "--sweep", "1", "--svg", str(tmp_path / "none" / "plot.svg"))


def test_compare_recommenders_and_size_each_chip(tmp_path):
    path = tmp_path / "plot.svg"
    flags = ["compare", *QUERIES, "--chips", "h100,millpower-1", "--rate", "3000", "--json"]
    compared = json.loads(output(*flags, "--svg", str(path), "--sweep", "1,4"))
    for chip in compared["chips"]:
        assert chip["report"]["queries_per_s"] > 0 and chip["kwh_per_million_queries"] > 0
    assert all(point["latency_p99_ms"] > 0 for line in compared["sweep"] for point in line["points"])
    texts = [text.text for text in ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}text")]
    assert "queries a second" in texts and "64 items a query" in " ".join(texts)

    sized = json.loads(output(*flags[:-3], "--rate", "30000", "--json", "--slo", "p99_ms=2", "--max-chips", "16"))
    for chip in sized["chips"]:
        alone = json.loads(output("simulate", *QUERIES, "--rate", "30000", "--chip", chip["chip"], "--slo", "p99_ms=2",
                                  "--max-chips", "16", "--json"))
        assert chip["chips"] == alone["chips"] and chip["report"]["latency_s"]["p99"] <= 0.002
    never = json.loads(output(*flags, "--slo", "p99_ms=0.0001", "--max-chips", "2"))
    assert all("no layout of up to 2 chips" in chip["error"] for chip in never["chips"])
