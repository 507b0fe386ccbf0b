"""A fake GPU: its memory is NumPy arrays, and it makes each copy as late as the events allow.

The fake GPU records the calls of `ktfast.kmeans.data.streaming`, so that tests can check their
order. A block that is read before its copy, or overwritten too early, holds wrong numbers.
"""

import weakref

import numpy as np

from ktfast.native.gpu_memory import Pinned

POISON = 0xA5


class Event:
    """A point in a queue, which is past when all copies before it have been made."""

    def __init__(self, device, name, copies):
        self.device, self.name, self.copies = device, name, copies

    @property
    def is_past(self):
        return all(copy.done for copy in self.copies)


class Copy:
    """A queued copy. It is made when the host or a kernel waits for an event after it."""

    def __init__(self, device, source, target, after):
        self.device, self.source, self.target, self.after = device, source, target, after
        self.done = False

    def make(self):
        if not self.done:
            self.target[:] = self.source
            self.done = True
            self.device.log.append(("made", self.target.ctypes.data))


class FakeDevice:
    """See `ktfast.native.gpu_memory.Device`.

    Attributes
    ----------
    log : list of tuple
        The calls, in order.
    in_use : int
        Bytes of the arrays that exist on the device.
    peak : int
        Largest value of `in_use`.
    """

    def __init__(self, free=1 << 40):
        self.like = np.empty(0)
        self.free = free
        self.log = []
        self.in_use = self.peak = 0
        self._copies = []
        self._waited = None  # the event that copies wait for

    def free_bytes(self):
        return self.free

    def empty(self, shape, dtype):
        array = np.empty(shape, dtype)
        if array.size:
            array.reshape(-1).view(np.uint8)[:] = POISON
        return self._counted(array)

    def from_host(self, array):
        return self._counted(array.copy())

    def _counted(self, array):
        self.in_use += array.nbytes
        self.peak = max(self.peak, self.in_use)
        weakref.finalize(array, self._forget, array.nbytes)
        return array

    def _forget(self, n_bytes):
        self.in_use -= n_bytes

    def matrix(self, memory, dtype, n, d):
        kind = np.dtype(dtype)
        return memory[: n * d * kind.itemsize].view(kind).reshape(n, d)

    def pinned(self, n_bytes):
        array = np.full(n_bytes, POISON, np.uint8)
        return Pinned(array, array)

    def copy(self, pinned, memory, n_bytes):
        assert self._waited is not None, "a copy must wait until its memory is free"
        self.log.append(("copy", memory.ctypes.data, self._waited.name))
        self._copies.append(Copy(self, pinned.source[:n_bytes], memory[:n_bytes], self._waited))

    def copied(self):
        event = Event(self, "copied", list(self._copies))
        self.log.append(("copied",))
        return event

    def computed(self):
        number = sum(entry[0] == "computed" for entry in self.log)
        self.log.append(("computed", number))
        return Event(self, number, [])

    def copies_wait(self, event):
        assert event.device is self
        self._waited = event

    def kernels_wait(self, event):
        # Kernels run at once here, so exactly the copies that they wait for are made now.
        self.log.append(("kernels wait",))
        self._make(event)

    def wait(self, event):
        self.log.append(("wait",))
        self._make(event)

    def _make(self, event):
        for copy in event.copies:
            copy.make()
        self._copies = [copy for copy in self._copies if not copy.done]
