"""What both daemons' status asks: does the process's gRPC health service answer?"""

LOOPBACK = "127.0.0.1"


def serving(port: int, *, seconds: float = 3.0) -> bool:
    """Whether the health service on a loopback port says that it serves."""
    import grpc
    from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
    from grpc_health.v1.health_pb2_grpc import HealthStub

    with grpc.insecure_channel(f"{LOOPBACK}:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=seconds)
        except grpc.RpcError:
            return False
    return bool(answer.status == HealthCheckResponse.SERVING)
