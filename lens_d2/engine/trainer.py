"""Detectron2's default trainer, with this project's model wrapping, loaders, optimizer and checkpoints."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase
from detectron2.engine.defaults import AMPTrainer, SimpleTrainer, TrainerBase, create_ddp_model
from detectron2.engine.hooks import EvalHook
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventWriter
from torch import nn

from ..data.loader import build_batch_sampler, build_test_loader, build_train_loader, load_training_records
from ..data.mapper import DATASET_COMBINATIONS
from ..inference.detector import build_inference
from ..io.checkpoint import LAST_CHECKPOINT, LENSCheckpointer, share_state
from ..io.cli import at_level, without_known_faults
from ..io.errors import DataError
from ..mining.hooks import build_mining_hooks
from ..modeling.pretrained import load_backbone_weights
from ..modeling.teacher import Teacher
from .evaluation import build_evaluator
from .overlays import build_overlay_hooks
from .preemption import PreemptionHook
from .solver import build_optimizer, build_scheduler, follow_config, freeze_all_but, with_epochs
from .teacher import TeacherHook
from .writers import build_writers

logger = logging.getLogger(__name__)


@contextmanager
def finite_losses(output_dir: str) -> Iterator[None]:
    """Turn Detectron2's error about a loss that is not finite into one line.

    Args:
        output_dir: of the training, which the error names.

    Raises:
        DataError: names the iteration and each loss.
    """
    try:
        yield
    except (FloatingPointError, AssertionError) as error:
        if isinstance(error, AssertionError) and "NaN" not in str(error):  # boxes that weights of NaN give
            raise
        hint = "lower SOLVER.BASE_LR, or clip gradients; --resume starts from the last checkpoint, which is sound"
        raise DataError(output_dir, f"{error}: {hint}") from error


class EvaluationOfWhole(EvalHook):
    """Detectron2's evaluation, skipped if the last training step has failed.

    Otherwise the error would be reported only after the evaluation, and ranks that did not fail would wait for
    those that did.
    """

    def after_train(self) -> None:
        """Evaluate if all steps are done."""
        if self.trainer.iter >= self.trainer.max_iter:
            super().after_train()


class CarefulTraining(TrainerBase):
    """Mixin of the trainers: faults are reported in one line, and loader workers end with the training.

    Stands before Detectron2's trainer among the bases; needs its ``data_loader``, a
    :class:`~lens_d2.data.loader.SampleLoader`, a ``checkpointer``, and its ``cfg``.
    """

    # How batches of another size are kept.
    keep_batch = "SOLVER.REFERENCE_WORLD_SIZE 0 SOLVER.IMS_PER_BATCH {} keeps them on any number of GPUs"

    def state_dict(self) -> dict:
        """As Detectron2's, with the batch by which its iterations count, and the name of the optimizer."""
        solver = self.cfg.SOLVER
        return {**super().state_dict(), "batch": solver.IMS_PER_BATCH, "optimizer_name": solver.OPTIMIZER}

    def load_state_dict(self, state_dict: dict) -> None:
        """As Detectron2's.

        Raises:
            ValueError: the state is of a training with other batches, whose iterations are not those of this one,
                or with another optimizer.
        """
        optimizer = self.cfg.SOLVER.OPTIMIZER
        if state_dict.get("optimizer_name", optimizer) != optimizer:
            raise ValueError(f"another SOLVER.OPTIMIZER: {state_dict['optimizer_name']}, and here {optimizer}")
        own, batch = self.cfg.SOLVER.IMS_PER_BATCH, state_dict.get("batch")
        if batch not in (None, own):
            raise ValueError(f"batches of {batch}, and here of {own}; {self.keep_batch.format(batch)}")
        super().load_state_dict(state_dict)

    def train(self, *args):
        """Train as Detectron2 does, then end the loader's workers."""
        logging.getLogger("detectron2.engine.train_loop").addFilter(without_known_faults)
        try:
            return super().train(*args)
        finally:
            self.data_loader.close()

    def run_step(self) -> None:
        """Do a step as Detectron2 does, with :func:`finite_losses`."""
        with finite_losses(self.checkpointer.save_dir):
            super().run_step()


class LENSTrainer(CarefulTraining, DefaultTrainer):
    """Trains LENS: each step's batch comes from one dataset, the same one on all ranks."""

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Build the model; its size is logged, not its layers."""
        model = build_model(cfg)
        millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
        logger.info("%s: %.2f million parameters, on %s", cfg.MODEL.META_ARCHITECTURE, millions, cfg.MODEL.DEVICE)
        return model

    def __init__(self, cfg: CfgNode):
        # DefaultTrainer's own __init__ wraps the model in a way that fails on the CPU and with heads that a
        # step leaves without gradients, so the objects are constructed here, in the same order.
        TrainerBase.__init__(self)
        records = load_training_records(cfg)
        cfg = with_epochs(cfg, build_batch_sampler(cfg, records).epoch_length)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        model = self.build_model(cfg)
        freeze_all_but(model, cfg.SOLVER.PARTS)
        self._check_learners(model, records)
        self._tell_untaught(cfg, model, records)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg, records)
        device_ids = None if cfg.MODEL.DEVICE == "cpu" else [comm.get_local_rank()]
        model = create_ddp_model(
            model, broadcast_buffers=False, device_ids=device_ids, find_unused_parameters=True
        )
        trainer = AMPTrainer if cfg.SOLVER.AMP.ENABLED else SimpleTrainer
        self._trainer = trainer(model, data_loader, optimizer)
        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = LENSCheckpointer(model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self))
        self.teacher = Teacher.from_config(cfg, self.checkpointer.model)
        if self.teacher is not None:
            self.checkpointer.add_checkpointable("teacher", self.teacher)
            if self.teacher.bank is not None:
                self.checkpointer.add_checkpointable("teacher_bank", self.teacher.bank)
            data_loader.finish = self.teacher.label
        self.start_iter = 0
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks(self.build_hooks())

    def state_dict(self) -> dict:
        """Add ``SOLVER.PARTS`` to the state that every training saves."""
        return {**super().state_dict(), "parts": list(self.cfg.SOLVER.PARTS)}

    def load_state_dict(self, state_dict: dict) -> None:
        """Load the state that every training saves.

        Raises:
            ValueError: as for other trainings, or other parts learnt in that training, so that its optimizer state
                does not fit.
        """
        parts = list(self.cfg.SOLVER.PARTS)
        if state_dict.get("parts", parts) != parts:
            raise ValueError(f"SOLVER.PARTS {state_dict['parts']}, and here {parts}")
        super().load_state_dict(state_dict)

    @staticmethod
    def _check_learners(model: nn.Module, records: list[dict]) -> None:
        """Refuse to train with datasets whose expert has no part that learns.

        Raises:
            DataError: names such an expert.
        """
        experts = getattr(model, "experts", ())
        learning = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
        owners = [{*name.split(".")} & {*experts} for name in learning]
        for expert in sorted({record["expert"] for record in records} & {*experts}):
            if not any(owner <= {expert} for owner in owners):
                fault = f"trains nothing of {expert}: leave its datasets out of DATASETS.TRAIN, or name more parts"
                raise DataError("SOLVER.PARTS", fault)

    @staticmethod
    def _tell_untaught(cfg: CfgNode, model: nn.Module, records: list[dict]) -> None:
        """Warn of experts that no record teaches: what they find stands among the fused detections."""
        learner = DATASET_COMBINATIONS[cfg.DATASETS.COMBINE]
        taught = {learner(record["expert"], cfg.MODEL.LENS.EXPERTS)[0] for record in records}
        untaught = [expert for expert in getattr(model, "experts", ()) if expert not in taught]
        if untaught and not cfg.SOLVER.PARTS:
            text = "no dataset of DATASETS.TRAIN teaches %s, whose detections are fused all the same"
            text += ": leave it out of MODEL.LENS.EXPERTS, unless it has learned before"
            logger.warning(text, ", ".join(untaught))

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume or load as Detectron2 does; without either, the backbone starts from ``MODEL.DENSENET.WEIGHTS``.

        A run that was killed between its last checkpoint and ``model_final.pth`` gets the latter here.

        Raises:
            DataError: there are checkpoints to resume from, but none is named as the newest.
        """
        if resume and not self.cfg.STAGES:
            self._refuse_lost_checkpoints()
        if not resume:
            self.checkpointer.begin_anew()
        if not self.cfg.MODEL.WEIGHTS and not (resume and self.checkpointer.has_checkpoint()):
            load_backbone_weights(self.checkpointer.model.backbone, self.cfg.MODEL.DENSENET.WEIGHTS)
        super().resume_or_load(resume)
        if 0 < self.start_iter < self.max_iter:
            follow_config(self.cfg, self.checkpointer.model, self.optimizer, self.scheduler)
        self.data_loader.batch_sampler.start_iter = self.start_iter
        if self.start_iter >= self.max_iter:
            if self.teacher is not None:
                self.checkpointer.model.load_state_dict(self.teacher.module.state_dict())
            self.checkpointer.save("model_final", iteration=self.iter)

    def _refuse_lost_checkpoints(self) -> None:
        """Refuse to begin anew over checkpoints if none of them is named as the newest.

        Raises:
            DataError: the folder holds checkpoints, and none is named.
        """
        folder = Path(self.cfg.OUTPUT_DIR)
        if not self.checkpointer.has_checkpoint() and any(folder.glob("model_*.pth")):
            fault = f"holds checkpoints, but no {LAST_CHECKPOINT}: write the name of the newest into that file"
            raise DataError(folder, fault)

    def build_hooks(self) -> list[HookBase | None]:
        """Detectron2's hooks and ours; mining before the evaluation, so that a kill in mining repeats none."""
        hooks = super().build_hooks()
        evaluation = next(i for i, hook in enumerate(hooks) if isinstance(hook, EvalHook))
        hooks[evaluation] = EvaluationOfWhole(hooks[evaluation]._period, hooks[evaluation]._func)
        return [
            *([] if self.teacher is None else [TeacherHook(self.teacher)]),
            *hooks[:evaluation],
            PreemptionHook(),
            *build_overlay_hooks(self.cfg),
            *build_mining_hooks(self.cfg),
            *hooks[evaluation:],
        ]

    def build_writers(self) -> list[EventWriter]:
        """See :func:`lens_d2.engine.writers.build_writers`."""
        return build_writers(self.cfg, self.max_iter)

    @staticmethod
    def auto_scale_workers(cfg: CfgNode, num_workers: int) -> CfgNode:
        """Scale the config as Detectron2 does; a period that the ranks divide to nothing becomes one iteration."""
        scaled = DefaultTrainer.auto_scale_workers(cfg, num_workers)
        frozen = scaled.is_frozen()
        scaled.defrost()
        scaled.SOLVER.CHECKPOINT_PERIOD = max(scaled.SOLVER.CHECKPOINT_PERIOD, 1)
        scaled.SOLVER.MAX_ITER = max(scaled.SOLVER.MAX_ITER, min(cfg.SOLVER.MAX_ITER, 1))
        scale = scaled.SOLVER.IMS_PER_BATCH / cfg.SOLVER.IMS_PER_BATCH
        scaled.MODEL.TEACHER.START_ITER = round(cfg.MODEL.TEACHER.START_ITER / scale)
        scaled.MODEL.TEACHER.DECAY = cfg.MODEL.TEACHER.DECAY**scale  # over as many samples
        scaled.TEST.EVAL_PERIOD = max(scaled.TEST.EVAL_PERIOD, min(cfg.TEST.EVAL_PERIOD, 1))
        if frozen:
            scaled.freeze()
        return scaled

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module):
        """See :func:`lens_d2.engine.solver.build_optimizer`."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer):
        """See :func:`lens_d2.engine.solver.build_scheduler`."""
        return build_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode, records: list[dict] | None = None):
        """See :func:`lens_d2.data.loader.build_train_loader`."""
        return build_train_loader(cfg, records=records)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        """See :func:`lens_d2.data.loader.build_test_loader`."""
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        """See :func:`lens_d2.engine.evaluation.build_evaluator`."""
        return build_evaluator(cfg, dataset_name)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> dict:
        """Evaluate on whole sub-volumes of ``DATASETS.TEST``, rescored if a classifier is configured."""
        model = model.module if hasattr(model, "module") else model
        share_state(model)  # every rank has trained with running statistics of its own
        # The evaluators' tables say all that Detectron2 would repeat in lines of comma-separated numbers.
        with at_level(logging.WARNING, "detectron2.evaluation.testing", "detectron2.engine.defaults"):
            return super().test(cfg, build_inference(cfg, model), evaluators)
