"""A file system of our own, over a folder: its reads can be throttled, and it holds so many bytes and no more.

    python slowfs.py FOLDER MOUNTPOINT CAPACITY_BYTES     # until killed

Reads wait as many seconds as the file FOLDER/.throttle says (none: not at all), so a test can slow the storage down in mid-run.
"""

import errno
import os
import sys
import time

import mfusepy


class SlowFS(mfusepy.Operations):
    use_ns = True

    def __init__(self, folder: str, capacity: int) -> None:
        self.folder, self.capacity = folder, capacity

    def getattr(self, path, fh=None):
        try:
            found = os.lstat(self.folder + path)
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno) from error
        names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")
        times = {"st_atime": found.st_atime_ns, "st_mtime": found.st_mtime_ns, "st_ctime": found.st_ctime_ns}
        return {name: getattr(found, name) for name in names} | times

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.folder + path)]

    def create(self, path, mode, fi=None):
        return os.open(self.folder + path, os.O_RDWR | os.O_CREAT, mode)

    def open(self, path, flags):
        return os.open(self.folder + path, os.O_RDWR)

    def read(self, path, size, offset, fh):
        try:
            with open(f"{self.folder}/.throttle") as file:
                time.sleep(float(file.read() or 0))
        except FileNotFoundError:
            pass
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        used = sum(os.path.getsize(f"{self.folder}/{name}") for name in os.listdir(self.folder))
        if used + len(data) > self.capacity:
            raise mfusepy.FuseOSError(errno.ENOSPC)
        return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        os.truncate(self.folder + path, length)

    def unlink(self, path):
        os.unlink(self.folder + path)

    def release(self, path, fh):
        os.close(fh)


if __name__ == "__main__":
    mfusepy.FUSE(SlowFS(sys.argv[1], int(sys.argv[3])), sys.argv[2], foreground=True, nothreads=False)
