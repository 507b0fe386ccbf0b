"""One fit on several processes: exchange of data, checks, and the decisions of rank 0.

`communicator` defines how processes exchange bytes and sums, and has the communicator of one
process. `torch_communicator` uses torch.distributed, and `threads` lets threads act as processes.
`ranks` builds the collective operations of a fit from a communicator. `leader` lets rank 0 run code
over the rows of all processes. `agreement` compares the parameters of the processes.
"""

from ktfast.kmeans.distributed.communicator import CommunicationError, Communicator
from ktfast.kmeans.distributed.threads import ThreadCommunicator
from ktfast.kmeans.distributed.torch_communicator import TorchCommunicator

__all__ = ["CommunicationError", "Communicator", "ThreadCommunicator", "TorchCommunicator"]
