"""Which node holds a public key: ``python -m server.node_of_key KEY.pub CONNECTION``, answered as by Flower's commands.

A key that is registered already is refused without the number of its node, and no command of Flower's tells the keys
of nodes; its Control API does.
"""

import sys
from pathlib import Path

from flwr.cli.flower_config import read_superlink_connection
from flwr.cli.supernode.register import try_load_public_key
from flwr.cli.utils import (
    cli_output_handler,
    flwr_cli_exc_handler,
    init_http_client_from_connection,
    print_json_to_stdout,
)
from flwr.proto.control_pb2 import ListNodesRequest
from flwr.proto.node_pb2 import NodeInfo

from shared_model.errors import FederationError


def main(key: str, connection: str) -> None:
    """Print the node's number and status, or the reason why not."""
    wanted = try_load_public_key(Path(key))
    with cli_output_handler(output_format="json"):
        held = [node for node in _nodes(connection) if node.public_key == wanted]
        if not held:
            raise FederationError("no node holds this key")
        print_json_to_stdout({"success": True, "node-id": held[0].node_id, "status": held[0].status})


def _nodes(connection: str) -> list[NodeInfo]:
    client = init_http_client_from_connection(read_superlink_connection(connection))
    try:
        with flwr_cli_exc_handler():
            return list(client.ListNodes(ListNodesRequest()).nodes_info)
    finally:
        client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
