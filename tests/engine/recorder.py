"""In a CUDA graph's place on any device: the operations on the very tensors, without any Python."""

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map


class Recorder:
    """A `Capture`: what depends on Python's state is as it was when it was recorded.

    ``recorded`` and ``replayed`` count.
    """

    def __init__(self):
        self.recorded = self.replayed = 0

    def __call__(self, work):
        calls = []

        class Watching(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                out = func(*args, **(kwargs or {}))
                calls.append((func, args, kwargs or {}, out))
                return out

        with Watching():
            result = work()
        self.recorded += 1

        def replay():
            self.replayed += 1
            made = {}  # by what was made in its place while recording

            def now(value):
                return made.get(id(value), value)

            for func, args, kwargs, before in calls:
                out = func(*tree_map(now, args), **tree_map(now, kwargs))
                for old, new in zip(tree_leaves(before), tree_leaves(out), strict=True):
                    made[id(old)] = new
            return now(result)

        return replay
