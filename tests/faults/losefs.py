"""A file system that forgets what was not fsynced, for power-loss tests: a pass-through FUSE over two folders.

`live` is what programs see; `durable` is what the disk would hold after the power went. A write lands in `live` and in a list of pending writes of its file;
fsync copies the pending ones to `durable`. Names (create, rename, unlink) are durable at once, which is kinder than a disk: what is lost here is lost on
real hardware too.

    python losefs.py LIVE DURABLE MOUNTPOINT      # until killed; then look at DURABLE
"""

import os
import sys
import threading

import mfusepy


class LoseFS(mfusepy.Operations):
    use_ns = True

    def __init__(self, live: str, durable: str) -> None:
        self.live, self.durable = live, durable
        self.pending: dict[str, list[tuple[int, bytes | None]]] = {}
        """Path → writes at an offset; None instead of bytes is a truncation to it."""
        self.mutex = threading.Lock()

    def getattr(self, path, fh=None):
        try:
            found = os.lstat(self.live + path)
        except OSError as error:
            raise mfusepy.FuseOSError(error.errno) from error
        names = ("st_mode", "st_nlink", "st_size", "st_uid", "st_gid")
        times = {"st_atime": found.st_atime_ns, "st_mtime": found.st_mtime_ns, "st_ctime": found.st_ctime_ns}
        return {name: getattr(found, name) for name in names} | times

    def readdir(self, path, fh):
        return [".", "..", *os.listdir(self.live + path)]

    def create(self, path, mode, fi=None):
        return os.open(self.live + path, os.O_RDWR | os.O_CREAT, mode)

    def mkdir(self, path, mode):
        os.mkdir(self.live + path, mode)
        os.mkdir(self.durable + path, mode)

    def open(self, path, flags):
        return os.open(self.live + path, os.O_RDWR)

    def read(self, path, size, offset, fh):
        return os.pread(fh, size, offset)

    def write(self, path, data, offset, fh):
        with self.mutex:
            self.pending.setdefault(path, []).append((offset, bytes(data)))
            return os.pwrite(fh, data, offset)

    def truncate(self, path, length, fh=None):
        with self.mutex:
            self.pending.setdefault(path, []).append((length, None))
            os.truncate(self.live + path, length)

    def fsync(self, path, datasync, fh):
        with self.mutex:
            handle = os.open(self.durable + path, os.O_RDWR | os.O_CREAT, 0o600)
            for offset, data in self.pending.pop(path, []):
                if data is None:
                    os.ftruncate(handle, offset)
                else:
                    os.pwrite(handle, data, offset)
            os.close(handle)

    def fsyncdir(self, path, datasync, fh):
        return 0

    def unlink(self, path):
        with self.mutex:
            self.pending.pop(path, None)
            os.unlink(self.live + path)
            if os.path.exists(self.durable + path):
                os.unlink(self.durable + path)

    def rename(self, old, new):
        with self.mutex:
            os.rename(self.live + old, self.live + new)
            if old in self.pending:
                self.pending[new] = self.pending.pop(old)
            if os.path.exists(self.durable + old):
                os.rename(self.durable + old, self.durable + new)

    def release(self, path, fh):
        os.close(fh)
        return 0

    def flush(self, path, fh):
        return 0

    def chmod(self, path, mode):
        os.chmod(self.live + path, mode)

    def chown(self, path, uid, gid):
        return 0

    def access(self, path, mode):
        return 0

    def statfs(self, path):
        found = os.statvfs(self.live)
        names = ("f_bavail", "f_bfree", "f_blocks", "f_bsize", "f_favail", "f_ffree", "f_files", "f_flag", "f_frsize", "f_namemax")
        return {name: getattr(found, name) for name in names}

    def utimens(self, path, times=None):
        return 0


if __name__ == "__main__":
    mfusepy.FUSE(LoseFS(sys.argv[1], sys.argv[2]), sys.argv[3], foreground=True)
