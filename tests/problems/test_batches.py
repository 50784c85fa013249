"""Minibatches: every row once an epoch, the same stream after a resume, augmentation as torchvision does it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import functional as transforms

from adamqlr.problems.rows import Batches, Rows, crop_and_flip


def next_batch(stream: Batches) -> tuple[Tensor, Tensor]:
    return stream.gather(*stream.next_selection())


def numbered(count: int) -> Rows:
    return Rows(torch.arange(count, dtype=torch.float32)[:, None], torch.arange(count))


@given(count=st.integers(2, 60), batch_size=st.integers(1, 80), seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_every_row_once_an_epoch(count: int, batch_size: int, seed: int) -> None:
    batches = Batches(numbered(count), batch_size, seed)
    for _ in range(2):
        epoch = [next_batch(batches) for _ in range(batches.steps_per_epoch)]
        seen = torch.cat([targets for _, targets in epoch])
        assert sorted(seen.tolist()) == list(range(count))
        for inputs, targets in epoch:
            assert torch.equal(inputs[:, 0].long(), targets)
            assert len(targets) > 1 or batch_size == 1
        assert all(len(targets) == batches.batch_size for _, targets in epoch[:-1])


@given(count=st.integers(2, 40), batch_size=st.integers(1, 50), taken=st.integers(0, 30))
@settings(max_examples=40, deadline=None)
def test_a_resumed_stream_goes_on_with_the_same_batches(count: int, batch_size: int, taken: int) -> None:
    stream = Batches(numbered(count), batch_size, seed=3)
    for _ in range(taken):
        next_batch(stream)
    resumed = Batches(numbered(count), batch_size, seed=4)
    resumed.load_state_dict(stream.state_dict())
    for _ in range(10):
        assert torch.equal(next_batch(stream)[1], next_batch(resumed)[1])


def test_epochs_and_seeds_differ() -> None:
    stream, other = Batches(numbered(50), 25, seed=0), Batches(numbered(50), 25, seed=1)
    first = torch.cat([next_batch(stream)[1] for _ in range(2)])
    second = torch.cat([next_batch(stream)[1] for _ in range(2)])
    assert not torch.equal(first, second)
    assert not torch.equal(first, torch.cat([next_batch(other)[1] for _ in range(2)]))


def test_more_than_all_rows_means_all() -> None:
    batches = Batches(numbered(7), 3200, seed=0)
    assert (batches.batch_size, batches.steps_per_epoch) == (7, 1)
    assert len(next_batch(batches)[1]) == 7


def test_crops_and_flips_are_torchvisions() -> None:
    torch.manual_seed(0)
    images = torch.randn(6, 3, 8, 10)
    offsets = torch.tensor([[0, 4, 8, 3, 5, 1], [8, 4, 0, 2, 7, 6]])
    flips = torch.tensor([True, False, True, False, True, False])
    result = crop_and_flip(images, offsets, flips)
    for row, image in enumerate(images):
        top, left = offsets[:, row].tolist()
        expected = transforms.crop(transforms.pad(image, 4), top, left, 8, 10)
        expected = transforms.hflip(expected) if flips[row] else expected
        torch.testing.assert_close(result[row], expected, rtol=0, atol=0)


def test_augmentation_moves_images_and_resumes() -> None:
    torch.manual_seed(0)
    rows = Rows(torch.randn(20, 3, 8, 8), torch.arange(20))
    stream, resumed = Batches(rows, 8, 0, "crop_flip"), Batches(rows, 8, 9, "crop_flip")
    first, targets = next_batch(stream)
    assert not torch.equal(first, rows.inputs[targets])
    resumed.load_state_dict(stream.state_dict())
    for _ in range(5):
        torch.testing.assert_close(next_batch(stream), next_batch(resumed), rtol=0, atol=0)


@pytest.mark.gpu
def test_the_order_is_the_same_on_cuda() -> None:
    rows = numbered(40)
    cpu, cuda = Batches(rows, 16, 5), Batches(rows.to(torch.device("cuda")), 16, 5)
    for _ in range(6):
        assert torch.equal(next_batch(cpu)[1], next_batch(cuda)[1].cpu())


def test_batches_of_all_rows_are_drawn_in_no_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is an epoch of its own, and drawing would be on the training clock."""
    batches = Batches(numbered(7), 3200, seed=0)
    monkeypatch.setattr(torch, "randperm", None)
    for _ in range(3):
        assert next_batch(batches)[1].tolist() == list(range(7))
