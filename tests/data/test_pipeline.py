import collections
import dataclasses
import itertools

import chex
import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from irjax import types
from irjax.data import clutter, layouts, pipeline, synthetic
from irjax.data.cache import cut, load_cache
from irjax.data.splits import in_memory
from irjax.ops import letterbox
from irjax.ops.keys import purpose_generator

SIZE, POINTS = 32, 4
FEED = {"size": SIZE, "max_points": POINTS}


@dataclasses.dataclass(frozen=True)
class Memory:
    """Noise images of several sizes with up to three points; example 0 has 16 bits where asked."""

    count: int
    deep: bool = False
    broken: int = -1

    @property
    def names(self):
        return tuple(f"n{i}" for i in range(self.count))

    @property
    def dtype(self):
        return np.dtype(np.uint16 if self.deep else np.uint8)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.broken:
            raise ValueError(f"n{index}.png: broken")
        rng = np.random.default_rng(index)
        shape = (16 + index % 3, 20)
        image = rng.integers(0, 255, shape, dtype=np.uint8)
        if self.deep and index == 0:
            image = image.astype(np.uint16) * np.uint16(200)
        points = rng.uniform(0, 15, (index % 4, 2)).astype(np.float32)
        return types.Example(self.names[index], image, points, image > 127)


def test_nothing_is_read_to_learn_its_type(monkeypatch):
    """Every feed makes each synthetic scene once."""
    made = collections.Counter()

    def counted(config, seed, index, synthesize=synthetic.synthesize):
        made[index] += 1
        return synthesize(config, seed, index)

    monkeypatch.setattr(synthetic, "synthesize", counted)
    source = synthetic.SyntheticSource(clutter.SceneConfig(height=32, width=32, bits=16), 0, 5)
    loaders = {
        "load_cache": lambda: load_cache(source, SIZE, 8),
        "windows": lambda: load_cache(source, 16, 8, enlarge=False, slide=True),
        "in_memory": lambda: in_memory(source, with_masks=True),
    }
    for name, load in loaders.items():
        made.clear()
        load()
        assert made == dict.fromkeys(range(5), 1), name
    made.clear()
    feed = {"order": pipeline.Order(5, 0), "batch_size": 5, "size": SIZE, "max_points": 8}
    batches = pipeline.host_batches(source, **feed, num_threads=1, prefetch=1)
    assert not made
    assert next(batches).images.dtype == np.uint16


def test_every_feed_says_what_of_the_canvas_is_image():
    source, draws = Memory(6), np.arange(6)
    wanted = [letterbox.letterbox_extent(16 + index % 3, 20, SIZE) for index in range(6)]
    batch = cut(load_cache(source, **FEED), draws, draws)
    np.testing.assert_array_equal(batch.extent, wanted)
    assert batch.extent.dtype == np.int32 and batch.extent[0].tolist() == [0, 2, 31, 29]
    order = pipeline.Order(6, 0)
    batch = next(pipeline.host_batches(source, order=order, batch_size=4, **FEED))
    np.testing.assert_array_equal(batch.extent, [wanted[i] for i in order.slice(0, 4)])
    windows = cut(load_cache(source, **FEED, enlarge=False, slide=True), draws, draws)
    np.testing.assert_array_equal(windows.extent, [[0, 0, 31, 31]] * 6)  # mirrored at the border: all of it is image


def equal(first, second):
    chex.assert_trees_all_equal(first, second)


sizes = st.integers(1, 20)
weighted = st.booleans()


def make_order(count, seed, weighted):
    weights = tuple(np.random.default_rng(seed).uniform(0, 1, count) + 0.01) if weighted else None
    return pipeline.Order(count, seed, weights)


@hypothesis.settings(max_examples=60, deadline=None)
@hypothesis.given(sizes, st.integers(0, 5), weighted, st.integers(0, 70), st.integers(0, 70))
def test_order_slices_agree_with_single_draws(count, seed, weighted, start, length):
    order = make_order(count, seed, weighted)
    piece = order.slice(start, start + length)
    assert piece.dtype == np.int64 and piece.shape == (length,)
    assert piece.tolist() == [make_order(count, seed, weighted)[draw] for draw in range(start, start + length)]
    assert length == 0 or (piece.min() >= 0 and piece.max() < count)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(sizes, st.integers(0, 5), st.integers(0, 4))
def test_an_epoch_has_every_example_once(count, seed, epoch):
    order = pipeline.Order(count, seed)
    drawn = order.slice(epoch * count, (epoch + 1) * count)
    assert sorted(drawn) == list(range(count))
    np.testing.assert_array_equal(drawn, purpose_generator("order", seed, epoch).permutation(count))


def test_weighted_order_follows_the_weights():
    order = pipeline.Order(4, 0, (0, 1, 3, 0))
    drawn = order.slice(0, 8000)
    assert set(drawn) == {1, 2}
    assert abs((drawn == 2).mean() - 0.75) < 0.02
    assert order == pipeline.Order(4, 0, np.array([0, 1, 3, 0])) and hash(order) is not None
    assert not np.array_equal(order.epoch(0), order.epoch(1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "at least one"),
        ((3, -1), "seed"),
        ((3, 0, (1, 2)), "3 weights"),
        ((2, 0, (1, -2)), "not negative"),
        ((2, 0, (0, 0)), "all zero"),
        ((2, 0, (1, np.nan)), "finite"),
    ],
)
def test_bad_orders(arguments, message):
    with pytest.raises(ValueError, match=message):
        pipeline.Order(*arguments)


def test_draws_are_not_negative():
    with pytest.raises(ValueError, match="from 0 upwards"):
        pipeline.Order(3, 0)[-1]


def test_letterbox_example():
    example = Memory(9)[7]
    result = pipeline.letterbox_example(example, SIZE, POINTS, with_mask=True)
    np.testing.assert_array_equal(result["images"], letterbox.letterbox_host(example.image, SIZE))
    np.testing.assert_array_equal(result["mask"], letterbox.letterbox_host(example.mask, SIZE))
    height, width = example.image.shape
    back = letterbox.from_canvas(result["points"][:3], height, width, SIZE)
    np.testing.assert_allclose(back, example.points, atol=1e-4)
    assert result["valid"].tolist() == [True, True, True, False] and not result["points"][3].any()
    assert result["points"].dtype == np.float32
    with pytest.raises(ValueError, match="n7 has 3 targets, more than max_points=2"):
        pipeline.letterbox_example(example, SIZE, 2)
    with pytest.raises(ValueError, match="n7 has points but no mask"):
        pipeline.letterbox_example(dataclasses.replace(example, mask=None), SIZE, POINTS, with_mask=True)


def feed(source, count, **options):
    order = pipeline.Order(len(source), 1)
    batches = pipeline.host_batches(source, order=order, **{"batch_size": 4, **FEED, **options})
    return list(itertools.islice(batches, count))


def test_host_batches_are_the_device_caches_batches():
    source = Memory(10, deep=True)
    cache, order = load_cache(source, **FEED), pipeline.Order(10, 1)
    for number, batch in enumerate(feed(source, 6)):
        draws = np.arange(number * 4, number * 4 + 4)
        assert batch.index.dtype == np.int32
        np.testing.assert_array_equal(batch.index, draws)
        wanted = cut(cache, order.slice(draws[0], draws[-1] + 1), draws)
        for name in ("images", "points", "valid", "extent"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(wanted, name))


def test_processes_together_form_the_global_batch():
    source = Memory(10)
    whole = feed(source, 4)
    parts = [feed(source, 4, process_index=p, process_count=2) for p in (0, 1)]
    for number, batch in enumerate(whole):
        for p in (0, 1):
            np.testing.assert_array_equal(parts[p][number].index, batch.index[p::2])
            np.testing.assert_array_equal(parts[p][number].images, batch.images[p::2])


@hypothesis.settings(max_examples=10, deadline=None)
@hypothesis.given(st.integers(1, 9), st.integers(1, 5), st.integers(0, 7), st.integers(0, 3))
def test_resume_to_the_exact_batch(count, batch_size, used, threads):
    order = pipeline.Order(count, 2)
    options = {"order": order, "batch_size": batch_size, "num_threads": threads, **FEED}
    uninterrupted = list(itertools.islice(pipeline.host_batches(Memory(count), **options), used + 3))
    interrupted = pipeline.host_batches(Memory(count), **options)
    for _ in range(used):
        next(interrupted)
    state = interrupted.get_state()
    restored = pipeline.host_batches(Memory(count), **options)
    restored.set_state(state)
    started = pipeline.host_batches(Memory(count), **options, start=used)
    for number in range(used, used + 3):
        equal(next(restored), uninterrupted[number])
        equal(next(started), uninterrupted[number])


def test_reading_errors_reach_the_caller():
    with pytest.raises(ValueError, match=r"n3\.png"):
        feed(Memory(5, broken=3), 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 3, "process_count": 2}, "multiple of process_count=2"),
        ({"batch_size": 0}, "multiple"),
        ({"process_index": 1}, "process_index"),
        ({"start": -1}, "start"),
        ({"order": pipeline.Order(4, 0)}, "for 4 examples, the source has 5"),
    ],
)
def test_bad_feeds(options, message):
    with pytest.raises(ValueError, match=message):
        pipeline.host_batches(Memory(5), **{"order": pipeline.Order(5, 0), "batch_size": 2, **FEED, **options})


def test_reading_ahead_keeps_the_order_and_is_never_far_ahead():
    begun = []
    for place, value in enumerate(pipeline.read_ahead(lambda i: (begun.append(i), i)[1], range(40), workers=2)):
        assert value == place and max(begun) <= place + 5
    with pytest.raises(ValueError, match=r"n3\.png"):
        list(pipeline.read_ahead(Memory(7, broken=3).__getitem__, range(7)))


def test_worker_processes_give_the_same_batches(tmp_path):
    # Workers import what they read with, so the source must be one of the package's.
    (tmp_path / "images").mkdir()
    (tmp_path / "points.csv").write_text("name,x,y\na,3,4\n")
    for name in "abc":
        values = np.random.default_rng(ord(name)).integers(0, 255, (20, 24), dtype=np.uint8)
        Image.fromarray(values).save(tmp_path / "images" / f"{name}.png")
    source = layouts.open_layout(tmp_path, "all")
    options = {"order": pipeline.Order(3, 0), "batch_size": 2, **FEED}
    alone = list(itertools.islice(pipeline.host_batches(source, **options), 4))
    batches = pipeline.host_batches(source, **options, worker_count=1)
    try:
        equal(next(batches), alone[0])
        state = batches.get_state()
        equal(next(batches), alone[1])
        batches.set_state(state)
        equal(next(batches), alone[1])
    finally:
        batches.close()
