"""Random access to the records of TFRecord files, without TensorFlow.

Such a file is a row of records: 8 bytes of length, 4 of its checksum, the record, 4 of its checksum. Going from
length to length finds every record's place without reading the records.
"""

import concurrent.futures
import os
from collections.abc import Sequence

import numpy as np

from hamjepa_jax.errors import UserError

LENGTH, CHECKSUM = 8, 4  # bytes
FILES_AT_ONCE = 16


class TFRecords:
    """The records of some files, one after the other.

    Attributes:
      paths: of the files.
      files: [n] int64, the position in `paths` of each record's file.
      offsets: [n] int64, the byte in that file at which the record's length stands.
    """

    def __init__(self, paths: Sequence[str], lengths: Sequence[int]):
        """Finds the records.

        Args:
          paths: of the files.
          lengths: how many records each has.

        Raises:
          UserError: if a file is missing, or has another number of records.
        """
        self.paths = tuple(map(os.fspath, paths))
        with concurrent.futures.ThreadPoolExecutor(FILES_AT_ONCE) as threads:
            found = list(threads.map(_offsets, self.paths, lengths))
        self.files = np.repeat(np.arange(len(found)), lengths)
        self.offsets = np.concatenate(found)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> bytes:
        with open(self.paths[self.files[i]], "rb", buffering=0) as file:
            file.seek(self.offsets[i])
            size = int.from_bytes(file.read(LENGTH), "little")
            file.seek(CHECKSUM, os.SEEK_CUR)
            return file.read(size)


def _offsets(path: str, count: int) -> np.ndarray:
    """[count] int64: where the records of a file begin."""
    offsets, at = [], 0
    try:
        with open(path, "rb", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            while at < end:
                offsets.append(file.seek(at))
                at += LENGTH + CHECKSUM + int.from_bytes(file.read(LENGTH), "little") + CHECKSUM
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); prepare the data set again.") from None
    if at != end or len(offsets) != count:
        raise UserError(
            f"{path} is damaged or incomplete: it should have {count} records; prepare the data set again."
        )
    return np.asarray(offsets, np.int64)
