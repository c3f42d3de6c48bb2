"""Data sets of the library `datasets`, written here in each of its forms."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("datasets")

from tests.running import TINY, tokenrl, weights
from tokenrl_cli.dataset.huggingface import BLOCK, SHARES, HuggingFace
from tokenrl_cli.interfaces import Dataset, Divided, Example, NamedSplits, SettingError, UserError

ROWS = [
    {"id": f"x{i}", "translation": {"de": f"der Hund {i}", "en": f"the dog {i}"}, "refs": [f"a {i}", f"b {i}"], "n": i}
    for i in range(10)
]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the library keeps lies in a folder of the test; it goes to no hub."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def dataset(path: Path | str, **changes: Any) -> HuggingFace:
    values: dict[str, Any] = {"path": str(path), "name": None, "splits": {}, "columns": None, "rl_share": 0.0}
    values |= {"rl_split": None, "max_source_length": 10, "overlong": "truncate"}
    values |= {"source_column": "translation.en", "reference_column": "translation.de"}
    return HuggingFace(**(values | changes))


def table(rows: list[dict[str, Any]]) -> Any:
    import datasets

    return datasets.Dataset.from_list(rows)


def saved(folder: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """A folder that `save_to_disk` wrote, with the names of splits that public data sets have."""
    import datasets

    parts = {"train": rows, "validation": rows[:3], "test": rows[3:5]}
    datasets.DatasetDict({name: table(part) for name, part in parts.items()}).save_to_disk(folder)
    return folder


def columns_file(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, "utf-8")
    return path


def test_a_saved_data_set_is_read_as_every_other(tmp_path: Path) -> None:
    data = dataset(saved(tmp_path / "data"))
    assert isinstance(data, Dataset)
    assert isinstance(data, NamedSplits)
    assert isinstance(data, Divided)
    assert [data.size(split) for split in data.splits()] == [10, 3, 2]
    columns = {"id": "x4", "refs": ["a 4", "b 4"], "n": 4}
    assert data.example("test", 1) == Example("x4", "the dog 4", ["der Hund 4"], ["der Hund 4"], columns)
    assert data.example("test", 1).place == f"{tmp_path / 'data'}, split test, row 2"
    with pytest.raises(IndexError):
        data.example("test", 2)
    with pytest.raises(UserError, match=r"^split=dev: the data set has no such split"):
        data.size("dev")


def test_an_example_is_the_same_whatever_was_read_before(tmp_path: Path) -> None:
    rows = [{"src": f"s{i}", "refs": [f"r{i}"], "n": i} for i in range(2 * BLOCK + 5)]
    table(rows).save_to_disk(tmp_path / "data")
    data = dataset(tmp_path / "data", source_column="src", reference_column="refs")
    read = [data.example("train", i).source for i in range(len(rows))]
    assert read == [row["src"] for row in rows]
    for index in (len(rows) - 1, 0, BLOCK, BLOCK + 1, 3, BLOCK - 1, BLOCK, 0, 1, 2):
        data.example("train", index).references.append("changed")
        assert data.example("train", index).references == [f"r{index}"]


def test_references_are_a_text_a_list_or_several_columns(tmp_path: Path) -> None:
    folder = saved(tmp_path / "data")
    assert dataset(folder, reference_column="refs").example("train", 1).references == ["a 1", "b 1"]
    both = dataset(folder, reference_column=["translation.de", "refs"], columns=["n"]).example("train", 1)
    assert both == Example("x1", "the dog 1", ["der Hund 1", "a 1", "b 1"], both.references, {"n": 1})
    none = dataset(folder, reference_column=None, source_column=None).example("train", 1)
    assert (none.source, none.references) == ("", [])
    assert none.columns == ROWS[1]


def test_a_column_may_have_a_dot_in_its_name(tmp_path: Path) -> None:
    table([{"a.b": "x", "a": {"b": "y"}}]).save_to_disk(tmp_path / "data")
    example = dataset(tmp_path / "data", source_column="a.b", reference_column=None).example("train", 0)
    assert (example.source, example.columns) == ("x", {"a": {"b": "y"}})


def test_values_that_json_does_not_have_are_text_or_left_out(tmp_path: Path) -> None:
    import datetime

    row = {"src": "x", "day": datetime.date(2020, 1, 2), "raw": b"\0", "few": [1.5, None], "empty": None}
    table([row]).save_to_disk(tmp_path / "data")
    example = dataset(tmp_path / "data", source_column="src", reference_column=None).example("train", 0)
    assert example.columns == {"day": "2020-01-02", "raw": None, "few": [1.5, None], "empty": None}


# ---------------------------------------------------------------------------------------------------------- files


def test_the_files_of_a_folder_are_its_splits(tmp_path: Path) -> None:
    for name, rows in (("train-00000-of-00002", ROWS[:4]), ("train-00001-of-00002", ROWS[4:]), ("dev", ROWS[:1])):
        table(rows).to_parquet(tmp_path / "data" / f"{name}.parquet")
    columns_file(tmp_path / "data" / "test" / "part.jsonl", json.dumps(ROWS[0]) + "\n")
    (tmp_path / "data" / ".hidden.parquet").write_text("x")
    data = dataset(tmp_path / "data")
    assert [data.size(split) for split in data.splits()] == [10, 1, 1]
    assert [data.example("train", i).id for i in range(10)] == [row["id"] for row in ROWS]
    assert data.example("test", 0).source == "the dog 0"


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.csv.gz"])
def test_nothing_in_a_file_of_columns_is_taken_for_a_number_or_for_nothing(tmp_path: Path, name: str) -> None:
    separator = "\t" if "tsv" in name else ","
    rows = [["src", "refs", "n"], ["007", "NA", "1"], ["null", "1e5", ""], ["True", "nan", "2020-01-01"]]
    columns_file(tmp_path / name, "\ufeff" + "".join(separator.join(row) + "\n" for row in rows))
    data = dataset(tmp_path, source_column="src", reference_column="refs")
    examples = [data.example("train", i) for i in range(3)]
    assert [[each.source, *each.references, each.columns["n"]] for each in examples] == rows[1:]


def test_quotes_belong_to_csv_and_not_to_tsv(tmp_path: Path) -> None:
    columns_file(tmp_path / "train.csv", 'src,refs\n"a, ""b""\nc",d\n')
    columns_file(tmp_path / "val.tsv", 'src\trefs\n"a\tb"\nc\t"d\n')
    data = dataset(tmp_path, source_column="src", reference_column="refs")
    assert data.example("train", 0).source == 'a, "b"\nc'
    assert [data.example("val", i).source for i in range(2)] == ['"a', "c"]


def test_one_file_is_divided_by_what_splits_says(tmp_path: Path) -> None:
    file = columns_file(tmp_path / "all.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))
    with pytest.raises(UserError, match=r"has no split 'val'; it has train") as caught:
        dataset(file).size("val")
    assert SHARES in caught.value.remedy
    named = {"train": "train[:75%]", "val": "train[75%:95%]", "test": "train[95%:]", "few": ["train[1:3]", "train[:1]"]}
    data = dataset(file, splits=named)
    ids = {split: [data.example(split, i).id for i in range(data.size(split) or 0)] for split in data.splits()}
    assert ids["few"] == ["x1", "x2", "x0"]
    whole = ids["train"] + ids["val"] + ids["test"]
    assert whole == [row["id"] for row in ROWS], "no row is lost, and none is in two parts"
    assert [len(ids[split]) for split in ("train", "val", "test")] == [8, 2, 0]


def test_splits_can_be_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "data")
    data = dataset(folder, splits={"val": "test", "test": ["validation", "test"], "rest": "train[8:]"})
    assert [data.size(split) for split in ("val", "test", "rest")] == [2, 5, 2]
    files = tmp_path / "files"
    for name in ("a", "b"):
        columns_file(files / f"{name}.csv", f"translation.en,translation.de\n{name},x\n")
    data = dataset(files, splits={"train": "*.csv", "val": "b.csv", "test": "b"})
    assert [data.size(split) for split in data.splits()] == [2, 1, 1]
    with pytest.raises(
        UserError, match=r"^dataset\.splits\.val=c\.csv: is neither a split .*\(a, b\) nor a file there"
    ):
        dataset(files, splits={"val": "c.csv"}).size("val")
    (files / "mixed.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(UserError, match="are of different or unknown kinds"):
        dataset(files, splits={"val": "*"}).size("val")
    for name, value in (("one", 1), ("other", "a")):
        (files / f"{name}.jsonl").write_text(json.dumps({"n": value}) + "\n")
    with pytest.raises(UserError, match=r"^dataset\.splits\.val: its parts differ in their columns"):
        dataset(files, splits={"val": ["one", "other"]}).size("val")


# ------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source_column": "translation.en", "reference_column": "translation.en"}, r"^reference_column: must differ"),
        ({"splits": {"a b": "x"}}, r"^splits\.a b: is no name for a split"),
        ({"splits": {"val": []}}, r"^splits\.val: names nothing"),
        ({"rl_split": "more"}, r"^rl_split=more: the data set has no such split"),
        ({"name": "de-en"}, r"^name: is for data sets of the hub"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        dataset(tmp_path, **changes)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path: Path) -> None:
    folder = saved(tmp_path / "data")
    with pytest.raises(UserError, match=r"has no column 'ref' \(did you mean 'refs'\?\); it has id, translation, refs"):
        dataset(folder, reference_column="ref").size("train")
    with pytest.raises(UserError, match="has no column 'm'"):
        dataset(folder, columns=["m"]).size("train")
    with pytest.raises(UserError, match=r"split train, row 1: expected text under 'translation\.fr', got nothing"):
        dataset(folder, source_column="translation.fr").example("train", 0)
    with pytest.raises(UserError, match=r"split train, row 2: expected text under 'n', got 1"):
        dataset(folder, source_column="n").example("train", 1)


@pytest.mark.parametrize("value", ["", " ", ["x", ""], [3], 3])
def test_an_empty_reference_is_refused_with_its_row(tmp_path: Path, value: Any) -> None:
    table([{"src": "a", "refs": value}]).save_to_disk(tmp_path / "data")
    with pytest.raises(UserError, match=r"split train, row 1: expected a text or a list of texts under 'refs'"):
        dataset(tmp_path / "data", source_column="src", reference_column="refs").example("train", 0)


def test_a_row_without_references_is_a_prompt(tmp_path: Path) -> None:
    table([{"src": "a", "refs": []}, {"src": "b", "refs": None}]).save_to_disk(tmp_path / "data")
    data = dataset(tmp_path / "data", source_column="src", reference_column="refs")
    assert [data.example("train", i).references for i in range(2)] == [[], []]


def test_a_script_is_refused_and_never_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    folder = tmp_path / "data"
    columns_file(folder / "data.py", f"open({str(mark)!r}, 'w')\n")
    with pytest.raises(UserError, match="a data set made by a script is not read, for its code would have to be run"):
        dataset(folder).size("train")
    with pytest.raises(UserError, match=r"data\.py: are of different or unknown kinds"):
        dataset(folder / "data.py").size("train")
    assert not mark.exists()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such file or folder"):
        dataset(tmp_path / "gone").size("train")
    with pytest.raises(UserError, match="there is no such file or folder"):
        dataset("gone.csv").size("train")
    with pytest.raises(UserError, match="it cannot be read from the Hugging Face hub") as caught:
        dataset("owner/name", name="de-en").size("train")
    assert "datasets.load_dataset('owner/name', 'de-en').save_to_disk(DIR)" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("train.parquet", "no", "cannot be read"),
        ("train.jsonl", '{"src": ', "cannot be read"),
        ("train.csv", "src,refs\na,b\na,b,c\n", "line 3: has 3 fields, expected 2"),
        ("train.tsv", "src\trefs\na\n", "line 2: has 1 fields, expected 2"),
        ("train.csv", 'src,refs\na,"b\n', "line 2: is not CSV"),
        ("train.csv", "src,src\na,b\n", "must begin with the names of its columns, each once"),
        ("train.csv", "", "must begin with the names"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    file = columns_file(tmp_path / "data" / name, content)
    with pytest.raises(UserError, match=message) as caught:
        dataset(tmp_path / "data", source_column="src", reference_column="refs").size("train")
    assert str(file) in caught.value.where


def test_a_damaged_saved_data_set_is_named(tmp_path: Path) -> None:
    folder = saved(tmp_path / "data")
    next((folder / "train").glob("*.arrow")).write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        dataset(folder).size("train")


# ----------------------------------------------------------------------------------------------------------- a run

RUN = [each.replace("token_accuracy", "bleu") for each in TINY if not each.startswith("dataset")]
RUN += ["dataset=huggingface", "dataset.source_column=translation.en", "dataset.reference_column=translation.de"]
RUN += ["dataset.path=pairs", "trainer.warm_start_steps=2", "trainer.eval_examples=3"]


def test_a_run_on_it_is_validated_resumed_to_the_same_bits_and_evaluated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"translation": {"de": f"der Hund {i % 7}", "en": f"the dog {i % 7}"}} for i in range(40)]
    saved(tmp_path / "pairs", rows)
    assert tokenrl("validate", *RUN) == 0
    assert tokenrl("train", *RUN, "trainer.steps=4", "out=whole") == 0
    assert tokenrl("train", *RUN, "trainer.steps=2", "out=parts") == 0
    assert tokenrl("train", "resume=parts", "trainer.steps=4") == 0
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    assert tokenrl("eval", "ckpt=whole", "split=val") == 0
    assert tokenrl("generate", "ckpt=whole", "split=test", "output=out.txt") == 0
    assert len((tmp_path / "out.txt").read_text("utf-8").splitlines()) == 2
