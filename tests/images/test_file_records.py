"""Hashes of files are kept, and a damaged store is not believed."""

import pytest

from ktfast.images.file_records import FileHashes, read_recorded, read_records, write_records


@pytest.fixture
def records(tmp_path):
    files = {}
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
        files[str(tmp_path / name)] = read_recorded(tmp_path / name)[1]
    return files


def test_records_survive_writing(records, tmp_path):
    write_records(tmp_path / "records.json", records, key="mine")
    assert read_records(tmp_path / "records.json", key="mine") == records
    assert read_records(tmp_path / "records.json", key="other") == {}


def test_a_changed_bit_empties_the_store(records, tmp_path):
    store = tmp_path / "records.json"
    write_records(store, records)
    whole = store.read_bytes()
    true_hashes = FileHashes(store).sha256(records)
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        store.write_bytes(damaged)
        assert read_records(store) == {}
        if position % 20 == 0:
            assert FileHashes(store).sha256(records) == true_hashes
