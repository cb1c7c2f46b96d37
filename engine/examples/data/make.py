#!/usr/bin/env python3
"""Makes the bundled sample of debtext-384 and its exact answers, outside the engine.

Usage:  python3 make.py --source DIR --out DIR [--check]

Needs Python 3.9 or later and numpy (tried with 2.4); nothing else. DIR of --source is the full set
(60,000 rows, 500 queries). Without --check the files are written. With --check nothing is written:
every file is computed again and compared with what lies in --out, and the method of the exact
answers is first held against the full set's own answers (gt.npy and every gt_filter_*.npy).

The sample. Rows are drawn without replacement per section, each section getting its share of ROWS
by largest remainder and at least one row; queries are drawn uniformly. One seed decides both. Rows
and queries keep their order and their original ids (`id` in attrs.csv and texts.jsonl, `q` in
query_texts.jsonl); row i of base.npy is line i of attrs.csv after its header. Bytes of vectors and
lines of text are copied, never re-encoded.

The answers. Read f16, widen to f32, divide each vector by its norm in f32, take dot products in
f32; order by falling similarity, then rising id. The answers name original ids. Dot products that
differ only by the rounding of f32 may change places between two linear algebra libraries, so a
comparison counts a different id as agreement when its similarity (in f64) is within TIE of that of
the id it displaces; for the full set it prints how many there were.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

ROWS = 8_000
QUERIES = 200
NEAREST = 100
SEED = 20_261
TIE = 2e-7
FULL_FILES = (
    "meta.json",
    "base.npy",
    "queries.npy",
    "attrs.csv",
    "texts.jsonl",
    "query_texts.jsonl",
    "filters.json",
)
# The one filter of the sample: a section, hence correlated with the vectors.
FILTERS = ("sec5",)


def fail(message):
    sys.exit("make.py: " + message)


def normalised(halves):
    wide = halves.astype(np.float32)
    return wide / np.linalg.norm(wide, axis=1, keepdims=True)


def exact(base, queries, ids, allowed, width):
    """Original ids of the `width` nearest allowed rows per query, int32 [queries, width].

    The similarities are kept for all rows and sorted in full: the order is total (similarity, then
    id), so no selection can drop a tie at the edge.
    """
    rows = np.flatnonzero(allowed)
    if len(rows) < width:
        fail(f"a filter leaves {len(rows)} rows, {width} answers were asked for")
    similarity = normalised(queries) @ normalised(base[rows]).T
    order = np.lexsort((np.broadcast_to(ids[rows], similarity.shape), -similarity), axis=1)
    return ids[rows][order[:, :width]].astype(np.int32)


def matches(where, ids, attrs):
    """The rows that a `where` of filters.json keeps; only the source's three shapes are known."""
    words = where.split()
    if words[:2] == ["inst", "<="] and len(words) == 3:
        return np.array([int(a[4]) for a in attrs]) <= int(words[2])
    if words[:2] == ["section", "="] and len(words) == 3:
        return np.array([a[2] for a in attrs]) == words[2].strip("'")
    if words[:2] == ["id", "%"] and words[3] == "=" and len(words) == 5:
        return ids % int(words[2]) == int(words[4])
    fail(f"filters.json: unknown predicate {where!r}")


class Full:
    """The source as read: vectors, lines of text, attributes."""

    def __init__(self, folder):
        self.meta = json.loads((folder / "meta.json").read_text())
        self.base = np.load(folder / "base.npy")
        self.queries = np.load(folder / "queries.npy")
        lines = read(folder / "attrs.csv")
        self.header, self.attr_lines = lines[0], lines[1:]
        self.attrs = [line.split(",") for line in self.attr_lines]
        self.ids = np.array([int(a[0]) for a in self.attrs])
        self.texts = read(folder / "texts.jsonl")
        self.query_texts = read(folder / "query_texts.jsonl")
        self.filters = json.loads((folder / "filters.json").read_text())
        lengths = {
            "base.npy": (self.meta["n"], len(self.base)),
            "attrs.csv": (self.meta["n"], len(self.attrs)),
            "texts.jsonl": (self.meta["n"], len(self.texts)),
            "queries.npy": (self.meta["queries"], len(self.queries)),
            "query_texts.jsonl": (self.meta["queries"], len(self.query_texts)),
        }
        for name, (expected, found) in lengths.items():
            if found != expected:
                fail(f"{folder / name}: expected {expected} rows, found {found}")
        dim = self.meta["dim"]
        for name, array in (("base.npy", self.base), ("queries.npy", self.queries)):
            if array.dtype != np.dtype("<f2") or array.shape[1:] != (dim,):
                found = f"{array.dtype} {array.shape}"
                fail(f"{folder / name}: expected float16 [.., {dim}], found {found}")


def draw(full):
    """Indices of the sampled rows and queries, ascending."""
    rng = np.random.Generator(np.random.PCG64(SEED))
    sections = full.meta["sections_in_order"]
    total = sum(count for _, count in sections)
    shares = [ROWS * count / total for _, count in sections]
    quota = [max(1, int(share)) for share in shares]
    # Largest remainder: the rows still missing go to the sections that rounding down hurt most.
    by_loss = sorted(range(len(quota)), key=lambda i: (quota[i] - shares[i], i))
    for i in by_loss[: ROWS - sum(quota)]:
        quota[i] += 1
    column = np.array([a[2] for a in full.attrs])
    rows = []
    for (name, count), take in zip(sections, quota):
        members = np.flatnonzero(column == name)
        if len(members) != count:
            fail(f"meta.json: section {name}: expected {count} rows, attrs.csv has {len(members)}")
        rows.append(rng.choice(members, size=take, replace=False))
    rows = np.sort(np.concatenate(rows))
    queries = np.sort(rng.choice(len(full.queries), size=QUERIES, replace=False))
    if len(rows) != ROWS or len(np.unique(rows)) != ROWS:
        fail(f"the draw has {len(rows)} rows, expected {ROWS}")
    return rows, queries


def make(full, out):
    rows, queries = draw(full)
    base, asked, ids = full.base[rows], full.queries[queries], full.ids[rows]
    attrs = [full.attrs[i] for i in rows]
    np.save(out / "base.npy", base)
    np.save(out / "queries.npy", asked)
    np.save(out / "gt.npy", exact(base, asked, ids, np.ones(ROWS, bool), NEAREST))
    write(out / "attrs.csv", [full.header] + [full.attr_lines[i] for i in rows])
    write(out / "texts.jsonl", [full.texts[i] for i in rows])
    write(out / "query_texts.jsonl", [full.query_texts[i] for i in queries])

    filters = {}
    for name in FILTERS:
        source = full.filters[name]
        where = source.get("where", source["predicate"])
        kept = matches(where, ids, attrs)
        np.save(out / f"gt_filter_{name}.npy", exact(base, asked, ids, kept, NEAREST))
        count = int(kept.sum())
        filters[name] = {
            "predicate": source["predicate"],
            "sel": round(count / ROWS, 5),
            "count": count,
            "where": where,
        }
    (out / "filters.json").write_text(json.dumps(filters, indent=1) + "\n")

    sections = [name for name, _ in full.meta["sections_in_order"]]
    source = {key: full.meta[key] for key in ("name", "n", "queries")}
    meta = {
        "name": "debtext-384-sample",
        "n": ROWS,
        "queries": QUERIES,
        "dim": full.meta["dim"],
        "metric": full.meta["metric"],
        "model": full.meta["model"],
        "seed": SEED,
        "sampled_from": source,
        "sections_in_order": [[name, sum(a[2] == name for a in attrs)] for name in sections],
    }
    (out / "meta.json").write_text(json.dumps(meta) + "\n")


def read(path):
    """Lines ended by a line feed and nothing else: the texts may hold other line separators."""
    return path.read_text(encoding="utf-8").removesuffix("\n").split("\n")


def write(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def agrees(full, folder):
    """Holds `exact` against the answers that came with the full set."""
    base = normalised(full.base).astype(np.float64)
    queries = normalised(full.queries).astype(np.float64)
    everything = np.ones(len(full.base), bool)
    cases = [("gt.npy", everything)]
    for name, entry in full.filters.items():
        where = entry.get("where", entry["predicate"])
        cases.append((f"gt_filter_{name}.npy", matches(where, full.ids, full.attrs)))
    for name, allowed in cases:
        given = np.load(folder / name)
        # In ten parts, so that the full matrix of similarities never lies in memory.
        parts = np.array_split(full.queries, 10)
        width = given.shape[1]
        ours = np.concatenate([exact(full.base, p, full.ids, allowed, width) for p in parts])
        swapped = 0
        for q, i in zip(*np.nonzero(given != ours)):
            gap = abs(base[given[q, i]] @ queries[q] - base[ours[q, i]] @ queries[q])
            if gap > TIE:
                found = f"expected {given[q, i]}, found {ours[q, i]}, gap {gap:.2e}"
                fail(f"{name}: query {q}, place {i}: {found}")
            swapped += 1
        asked, places = given.shape[0], given.size
        print(f"{name}: {asked} queries agree; {swapped} of {places} places within rounding only")


def compare(fresh, out):
    names = sorted(path.name for path in fresh.iterdir())
    for name in names:
        if not (out / name).is_file():
            fail(f"{out / name}: missing")
        if (fresh / name).read_bytes() == (out / name).read_bytes():
            continue
        if name.startswith("gt"):
            same_answers(fresh, out, name)
            continue
        fail(f"{out / name}: differs from what the source and seed {SEED} give")
    stray = {path.name for path in out.iterdir()} - set(names) - {"make.py", "README.md"}
    if stray:
        fail(f"{out}: unexpected files {sorted(stray)}")
    print(f"{out}: {len(names)} files are as the source and seed {SEED} give them")


def same_answers(fresh, out, name):
    """Another linear algebra library may swap places within rounding, nothing else."""
    ids = np.array([int(line.split(",")[0]) for line in read(fresh / "attrs.csv")[1:]])
    base = normalised(np.load(fresh / "base.npy")).astype(np.float64)
    queries = normalised(np.load(fresh / "queries.npy")).astype(np.float64)
    here, there = np.load(fresh / name), np.load(out / name)
    if here.shape != there.shape or here.dtype != there.dtype:
        found = f"{there.dtype} {there.shape}"
        fail(f"{out / name}: expected {here.dtype} {here.shape}, found {found}")
    for q, i in zip(*np.nonzero(here != there)):
        place = np.searchsorted(ids, there[q, i])
        if place == len(ids) or ids[place] != there[q, i]:
            fail(f"{out / name}: query {q}, place {i}: id {there[q, i]} is not in the sample")
        ours = np.searchsorted(ids, here[q, i])
        gap = abs((base[place] - base[ours]) @ queries[q])
        if gap > TIE:
            found = f"expected {here[q, i]}, found {there[q, i]}, gap {gap:.2e}"
            fail(f"{out / name}: query {q}, place {i}: {found}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", required=True, type=Path, help="folder of the full set")
    parser.add_argument("--out", required=True, type=Path, help="folder of the sample")
    parser.add_argument("--check", action="store_true", help="compute again and compare")
    args = parser.parse_args()
    for name in FULL_FILES:
        if not (args.source / name).is_file():
            fail(f"{args.source / name}: missing")
    full = Full(args.source)
    if not args.check:
        args.out.mkdir(parents=True, exist_ok=True)
        make(full, args.out)
        size = sum(path.stat().st_size for path in args.out.iterdir())
        print(f"{args.out}: {ROWS} rows, {QUERIES} queries, {size} bytes in all")
        return
    agrees(full, args.source)
    with tempfile.TemporaryDirectory() as fresh:
        make(full, Path(fresh))
        compare(Path(fresh), args.out)


if __name__ == "__main__":
    main()
