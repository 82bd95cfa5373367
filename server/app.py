"""The ServerApp: one federation from admission to report."""

import logging
import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from server.admission import Admission, admit, without
from server.checkpoint import Checkpoint, check_same_settings, load_checkpoint, save_checkpoint
from server.evaluation import evaluate_left_out, evaluate_predictions, evaluate_validation
from server.exchange import Line
from server.progress import Progress
from server.released import save_model
from server.report import write_report
from server.results import CheckCount, DataSummary, FlowStep, RunResults, SiteSummary, Tuning, read_results
from server.rounds import Rounds, personalise, run_rounds
from server.spending import privacy_summary
from server.statistics import feature_summaries, federated_plan, poorly_covered
from server.strategies import build_strategy
from server.training import Training
from server.tuning import left_out, tune
from shared_model.batch import check_text_width, open_store
from shared_model.config import RunConfig
from shared_model.contract import contract_digest
from shared_model.errors import ConfigError, ConsiliumError, FederationError
from shared_model.inputs import Scaler
from shared_model.manifest import check_contract, read_manifest
from shared_model.mergeable import Validation
from shared_model.messages import Weights
from shared_model.model import build_model, load_model
from shared_model.noised import coarse_edge
from shared_model.plan import PreprocessingPlan
from shared_model.predict import best_device, predict
from shared_model.trial import THE_RUN, Trial

log = logging.getLogger("consilium.server")
app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run one federation from its run-config; everything it finds is written below ``output``."""
    config = RunConfig.from_flat(context.run_config)
    progress = Progress(Path(config.output))
    try:
        federate(grid, config, progress)
    except ConsiliumError as error:
        progress.tell("error", kind=type(error).__name__, message=str(error))
        raise


def federate(grid: Grid, config: RunConfig, progress: Progress) -> RunResults:
    """The sentence: admit, search settings, fit the plan, run the rounds, personalise, evaluate, leave each site out,
    report. What the run-config does not ask for is skipped, and so is what a resumed run has behind it."""
    grid = Line(grid, resends=config.resends, absence=config.absence_timeout)
    run = _Run(config, progress)
    start = run.resumed()
    admission = run.admitted(admit(grid, run.config, encoder=run.heldout_encoder()))
    trial = run.tuned(tune(grid, admission, config, run.output, run.after_fold)) if config.grid else THE_RUN
    config = run.config
    plan, admission = run.goes_on(start, admission) if start else run.planned(grid, admission)
    run.fitted(plan)
    strategy = build_strategy(config, len(admission.sites))
    initial: Weights = build_model(config.model_for(plan), seed=config.seed).state_dict()
    training = run_rounds(grid, admission, strategy, initial, plan, config, run.after_round, trial, start)
    run.trained(training, plan, personalise(grid, admission, training, plan, config))
    if config.leave_one_out:
        run.left_out(left_out(grid, admission, config, trial), training)
    return run.finish()


class _Run:
    """Collects the results document of one run and keeps it current on disk ('partial' until the end)."""

    def __init__(self, config: RunConfig, progress: Progress) -> None:
        self.config, self.progress, self.output = config, progress, Path(config.output)
        self.start = time.monotonic()
        self.results = RunResults(
            consilium_version=_version(),
            status="partial",
            config=config.to_flat(),
            contract_digest=contract_digest(config),
            data=self._data_summary(),
        )

    def heldout_encoder(self) -> str:
        """Digest of the encoder that prepared the held-out notes; empty without a held-out set.

        Raises ContractError when the held-out set was prepared for another study than the run's, or its
        embeddings do not fit the run's model.
        """
        if not self.config.heldout:
            return ""
        heldout = Path(self.config.heldout)
        check_contract(heldout, contract_digest(self.config))
        check_text_width(open_store(heldout), self.config.text_dimension)
        encoder: str = read_manifest(heldout)["encoder"]["digest"]
        return encoder

    def resumed(self) -> Checkpoint | None:
        """Where a run that was interrupted stands; None at the beginning of one. All of its sites are waited for, for
        as long as admission takes. Raises ConfigError when it is complete."""
        if not self.config.resume:
            return None
        path = self.output / "results.json"
        if path.exists() and read_results(path).status == "complete":
            raise ConfigError(f"resume: {self.output} is complete; there is nothing left to do")
        held = load_checkpoint(self.output)
        self.progress.tell("resumed", round=held.round if held else 0)
        if held:
            waited = max(self.config.expected_sites, len(held.sites))
            self.config = self.config.model_copy(update={"expected_sites": waited})
        return held

    def goes_on(self, start: Checkpoint, admission: Admission) -> tuple[PreprocessingPlan, Admission]:
        """The checkpoint's plan, and of the admitted sites those it was fitted with."""
        check_same_settings(start, self.config)
        names = admission.names
        new = dict.fromkeys(names - set(start.sites), "took no part in the run that is resumed")
        self.results.warnings += [f"{site} has not come back" for site in start.sites if site not in names]
        return start.plan, self.admitted(without(admission, new)) if new else admission

    def admitted(self, admission: Admission) -> Admission:
        """Note who takes part; the admission, unchanged."""
        cards = admission.sites.values()
        admitted = [
            SiteSummary(
                site=c.site,
                admitted=True,
                reason="",
                patients=c.patients,
                deaths=c.deaths,
                counts=c.counts,
                device=c.device,
            )
            for c in cards
        ]
        refused = [SiteSummary(site=s, admitted=False, reason=why) for s, why in admission.refused.items()]
        self.results.sites = admitted + refused
        self.results.encoder = next(iter(cards)).encoder
        self.progress.tell("admitted", sites=[s.site for s in admitted], refused=admission.refused)
        return admission

    def planned(self, grid: Grid, admission: Admission) -> tuple[PreprocessingPlan, Admission]:
        """The federation's plan, and the admission without the sites that have too little of it."""
        plan, statistics, missing = federated_plan(grid, admission, self.config)
        self.results.warnings += [f"{site} sent no statistics: {why}" for site, why in missing.items()]
        if self.config.secure_aggregation:
            self.results.warnings.append("secure aggregation: no site's coverage of the features could be judged")
        poor = poorly_covered(plan, statistics, self.config.least_coverage)
        if not poor:
            return plan, admission
        left = without(admission, poor)
        if len(left.sites) < self.config.min_sites:
            reasons = "; ".join(f"{site}: {why}" for site, why in poor.items())
            raise FederationError(f"plan: {len(left.sites)} of at least {self.config.min_sites} sites; {reasons}")
        return plan, self.admitted(left)

    def fitted(self, plan: PreprocessingPlan) -> None:
        self.results.plan_digest = plan.digest
        self.results.features = feature_summaries(plan, self.config)

    def after_round(self, rounds: Rounds) -> None:
        training = rounds.training
        last = training.rounds[-1]
        self._keep(training)
        save_checkpoint(self.output, rounds.checkpoint())
        self.results.write(self.output / "results.json")
        before = training.rounds[-2].validation_auroc if last.round > 1 else None
        facts = {"round": last.round, "sites": len(last.replied), "failed": last.failed, "loss": last.train_loss}
        self.progress.tell("round", rounds=self.config.rounds, auroc_before=before, **facts)

    def after_fold(self, done: int, of: int) -> None:
        self.progress.tell("fold", done=done, of=of)

    def tuned(self, tuning: Tuning) -> Trial:
        """The best settings become the run-config's, here and, by the trial that every message names, at the sites."""
        self.results.tuning, best = tuning, Trial(settings=tuning.trials[tuning.best].settings)
        self.config = best.config(self.config)
        self.results.config = self.config.to_flat()
        self.results.write(self.output / "results.json")
        return best

    def trained(self, training: Training, plan: PreprocessingPlan, personal: dict[str, Validation]) -> None:
        self._keep(training)
        self.results.best_round = training.best_round
        self.results.parameters = sum(t.numel() for t in training.weights.values())
        threshold, noised = training.validation.best_threshold, training.noised
        threshold = threshold if noised is None else coarse_edge(threshold)
        save_model(
            self.output / "model",
            training.weights,
            plan,
            self.config.model_for(plan),
            threshold=threshold,
            encoder=self.results.encoder,
        )
        self.results.validation = evaluate_validation(
            training.validation,
            training.sites,
            threshold=threshold,
            resamples=self.config.bootstrap,
            seed=self.config.seed,
            personal=personal or None,
            noised=noised,
        )
        if self.config.heldout:
            self._evaluate(training.weights, plan, threshold)
        else:
            self.results.warnings.append("no held-out set at the server: only the sites' validation is reported")

    def left_out(self, outside: dict[str, Validation], training: Training) -> None:
        self.results.leave_one_out = evaluate_left_out(
            outside, training.sites, resamples=self.config.bootstrap, seed=self.config.seed
        )

    def finish(self) -> RunResults:
        failures = {site for r in self.results.rounds for site in r.failed}
        self.results.warnings += [f"{site} missed at least one round; see the rounds" for site in sorted(failures)]
        self.results.privacy = privacy_summary(self.config, self.results.sites, len(self.results.rounds))
        self.results.status = "complete"
        self.results.timing.total = time.monotonic() - self.start
        self.results.write(self.output / "results.json")
        write_report(self.results, self.output / "report.html")
        self.progress.tell("done")
        return self.results

    def _evaluate(self, weights: Weights, plan: PreprocessingPlan, threshold: float) -> None:
        data, device = open_store(Path(self.config.heldout)), best_device()
        model = load_model(self.config.model_for(plan), weights).to(device)
        scores_N = predict(model, data, Scaler(plan), device)
        self.results.heldout = evaluate_predictions(
            scores_N,
            data,
            threshold=threshold,
            resamples=self.config.bootstrap,
            seed=self.config.seed,
            static=self.config.static,
        )
        found = self.results.heldout.metrics["auroc"]
        self.progress.tell("evaluated", auroc=found.value)

    def _keep(self, training: Training) -> None:
        timing = self.results.timing
        self.results.rounds, timing.rounds = training.rounds, training.seconds
        timing.local_training = sum(training.local_seconds)

    def _data_summary(self) -> DataSummary | None:
        if not self.config.heldout:
            return None
        manifest = read_manifest(Path(self.config.heldout))
        return DataSummary(
            source=manifest["source"],
            cohort=manifest["cohort"],
            profile=self.config.profile,
            label=self.config.label,
            prediction_hours=self.config.prediction_hours,
            rules_version=manifest["rules_version"],
            flow=[FlowStep(**step) for step in manifest["flow"]],
            checks=[CheckCount(**check) for check in manifest["row_checks"] + manifest["event_checks"]],
        )


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("consilium")
    except PackageNotFoundError:  # run from a bundle alone
        return "unknown"
