"""The plain Flower app that a deployed round is compared with: FedAvg over a model of 4 MB in 30 arrays, train and
evaluate as messages of their own, no work in either; Flower's processes with Flower's settings."""

import subprocess
import sys
import time
from pathlib import Path
from uuid import uuid4

from shared_model.flower import POLL_INTERVAL, flower_environment, free_port
from simulations.runner import MARK, ended_afterwards

BIN = Path(sys.executable).parent
ROUNDS = 3
PROJECT = """
[project]
name = "naive"
version = "1.0.0"

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "naive.server:app"
clientapp = "naive.client:app"

[tool.flwr.app.config]
times = ""
"""
SERVER = f"""
import time
import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()

class Timed(FedAvg):
    def configure_train(self, server_round, *args):
        with open(self.times, "a") as file:
            file.write(f"{{time.time()}}\\n")
        return super().configure_train(server_round, *args)

@app.main()
def main(grid: Grid, context: Context) -> None:
    strategy = Timed(min_train_nodes=2, min_evaluate_nodes=2, min_available_nodes=2)
    strategy.times = context.run_config["times"]
    arrays = ArrayRecord({{f"layer{{n}}": torch.zeros(35_000) for n in range(30)}})
    strategy.start(grid=grid, initial_arrays=arrays, num_rounds={ROUNDS})
"""
CLIENT = """
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()

@app.train()
def train(message: Message, context: Context) -> Message:
    weights = message.content["arrays"].to_torch_state_dict()
    metrics = MetricRecord({"num-examples": 1})
    return Message(RecordDict({"arrays": ArrayRecord(weights), "metrics": metrics}), reply_to=message)

@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    return Message(RecordDict({"metrics": MetricRecord({"num-examples": 1, "loss": 0.0})}), reply_to=message)
"""


def naive_round(folder: Path) -> float:
    """Seconds from the beginning of the second round to that of the last, a round."""
    app, times, port, mark = folder / "naive-app", folder / "times", free_port(), uuid4().hex
    (app / "naive").mkdir(parents=True)
    for name, text in (("pyproject.toml", PROJECT), ("naive/server.py", SERVER), ("naive/client.py", CLIENT)):
        (app / name).write_text(text, encoding="utf-8")
    (app / "naive" / "__init__.py").touch()
    environment = flower_environment(folder / "home", **{MARK: mark, POLL_INTERVAL: "1.0"})
    (folder / "home").mkdir()
    (folder / "home" / "config.toml").write_text(
        f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n', encoding="utf-8"
    )
    with ended_afterwards(mark), (folder / "log").open("wb") as log:

        def start(*command: str) -> subprocess.Popen[bytes]:
            return subprocess.Popen(
                [str(BIN / command[0]), *command[1:]], cwd=folder, env=environment, stdout=log, stderr=log
            )

        start("flower-superlink", "--insecure", "--port", str(port), "--disable-runtime-dependency-installation")
        time.sleep(8)
        for _ in range(2):
            start("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(free_port()))
        start("flwr", "run", str(app), "here", "--stream", "--run-config", f'times="{times}"').wait(timeout=600)
    begun = [float(line) for line in times.read_text(encoding="utf-8").split()]
    return (begun[-1] - begun[1]) / (len(begun) - 2)
