"""Puts the plugin's trainers into LLaMA-Factory's workflows, which keep data, callbacks, logs and checkpoints."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from lf_longpo.plugin.compat import replace_dpo_workflow, replace_offloading, replace_trainers
from lf_longpo.plugin.train.option_checks import check_packed
from lf_longpo.plugin.train.options import TrainOptions
from lf_longpo.plugin.train.pair_data import reading_pairs
from lf_longpo.plugin.train.parallel_choice import check_processes, reason_for_whole_rows
from lf_longpo.plugin.train.reference_logps import model_identity
from lf_longpo.plugin.train.trainer_choice import reason_for_other_workflow, reason_for_stock
from lf_longpo.plugin.train.trainer_guard import TrainerGuard

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

Note = Callable[[str], None]


class Prepared(NamedTuple):
    """A process that is ready to train.

    Attributes:
        settings: to train with, adapted to the device.
        guard: a callback for LLaMA-Factory; it refuses a stock trainer without a reported reason.
    """

    settings: dict[str, Any]
    guard: TrainerGuard


def prepare(settings: Mapping[str, Any], options: TrainOptions, note: Note) -> Prepared:
    """Installs the trainers in this process and adapts the settings to its device.

    Args:
        settings: of the recipe.
        options: what the trainers do beyond the recipe.
        note: prints a sentence for the user on how the run trains.

    Raises:
        UserError: the processes cannot be divided into groups of `options.sequence_parallel`.
    """
    from lf_longpo.plugin.train.compute_format import adapt

    check_processes(options.sequence_parallel)
    guard = install(options, note)
    if reason := reason_for_other_workflow(settings):
        check_packed(options, reason)
        note(_plain(reason, options))
        guard.decided = True
    adapted, changed = adapt(settings)
    if changed:
        note(changed)
    return Prepared(adapted, guard)


def install(options: TrainOptions, note: Note = print) -> TrainerGuard:
    """Lets LLaMA-Factory's DPO and SFT workflows in this process build the plugin's trainers where a run allows it.

    A second call has the same effect as the first; its options, `note` and guard are used from then on.

    Args:
        options: what the trainers do beyond the recipe.
        note: prints a sentence for the user on how the run trains.

    Returns:
        The guard, to be passed to LLaMA-Factory as a callback.
    """
    # These modules derive from LLaMA-Factory's trainers, so they are imported before the trainers are replaced.
    from lf_longpo.plugin.train.dpo_trainer import PackedDPOTrainer
    from lf_longpo.plugin.train.offload import OffloadedCheckpoint
    from lf_longpo.plugin.train.sft_trainer import PackedSFTTrainer

    guard, reference = TrainerGuard(), _DeferredReference()

    def dpo_builder(stock: Any) -> Callable[..., "Trainer"]:
        def build(model: "PreTrainedModel", ref_model: Any, **others: Any) -> "Trainer":
            guard.decided = True
            if reason := reason_for_stock(model, **others):
                check_packed(options, reason)
                note(_plain(reason, options))
                # Without training, LLaMA-Factory passes the model itself and does not create a reference model.
                return stock(model=model, ref_model=ref_model or reference.create(), **others)
            others |= {"options": options, "parallel": _parallel(model, options, note)}
            trainer: Any = _packed_dpo_trainer(PackedDPOTrainer, model, reference, note, others)
            if trainer.train_dataset.shared:
                note(_grouped(trainer))
            return trainer

        return build

    def sft_builder(stock: Any) -> Callable[..., "Trainer"]:
        def build(model: "PreTrainedModel", **others: Any) -> "Trainer":
            guard.decided = True
            if reason := reason_for_stock(model, **others):
                note(_plain(reason, options))
                return stock(model=model, **others)
            others["parallel"] = _parallel(model, options, note)
            note("no padding, logits of responses only")
            return PackedSFTTrainer(model=model, **others)

        return build

    replace_trainers(dpo_builder, sft_builder, reference.replacing)
    replace_dpo_workflow(reading_pairs(options))
    replace_offloading(lambda _: OffloadedCheckpoint)
    return guard


def _plain(reason: str, options: TrainOptions) -> str:
    whole = "; --sequence-parallel has no effect" if options.sequence_parallel > 1 else ""
    return f"plain LLaMA-Factory, since {reason}{whole}"


def _parallel(model: "PreTrainedModel", options: TrainOptions, note: Note) -> int:
    """Over how many processes each row is split; reports it."""
    parallel = options.sequence_parallel
    if parallel > 1:
        if reason := reason_for_whole_rows(model):
            note(f"each process computes whole rows, since {reason}; --sequence-parallel has no effect")
            return 1
        note(f"each row split over {parallel} processes")
    return parallel


def _grouped(trainer: Any) -> str:
    groups, args = trainer.train_dataset, trainer.args
    rows = args.per_device_train_batch_size * args.gradient_accumulation_steps * trainer.groups
    divided = f" in {len(groups):,} rows" if len(groups) > groups.prompts else ""
    return (
        f"{len(groups.pairs):,} pairs of {groups.prompts:,} prompts{divided}: a step has {rows:,} rows with one prompt "
        f"each and about {rows * groups.pairs_per_group:,.0f} pairs"
    )


def _packed_dpo_trainer(
    trainer: Callable[..., "Trainer"],
    model: "PreTrainedModel",
    reference: "_DeferredReference",
    note: Note,
    others: dict[str, Any],
) -> "Trainer":
    make_reference = reference.maker()
    if not others["finetuning_args"].use_ref_model:
        passes = "no reference"
    elif make_reference:
        passes = "a reference pass before the first step"
    else:
        passes = "reference passes in the first epoch only"
    note(f"prompts shared by chosen and rejected, logits of responses only, {passes}")
    return trainer(
        model=model,
        ref_model=None,
        make_reference=make_reference,
        starts_as_reference=reference.is_start(model, others["args"]),
        reference_identity=reference.identity(),
        **others,
    )


class _DeferredReference:
    """Replaces LLaMA-Factory's `create_ref_model`: keeps the arguments and loads the model only where it is needed."""

    def __init__(self) -> None:
        self._create: Callable[..., Any] = lambda *_: None
        self._arguments: tuple[Any, ...] | None = None

    def replacing(self, create: Callable[..., Any]) -> "_DeferredReference":
        """Keeps LLaMA-Factory's function and returns its replacement."""
        self._create = create
        return self

    def __call__(self, *arguments: Any) -> None:
        self._arguments = arguments

    def create(self) -> Any:
        """Loads the reference model; None where the policy without its adapter is the reference, or none is used."""
        return self._create(*self._arguments) if self._arguments else None

    def maker(self) -> Callable[[], Any] | None:
        """A function that loads the reference model, or None as above."""
        if not self._arguments:
            return None
        _, tuning = self._arguments
        adapter_off = tuning.finetuning_type == "lora" and tuning.ref_model is None
        return None if adapter_off else partial(self._create, *self._arguments)

    def is_start(self, policy: "PreTrainedModel", args: Any) -> bool:
        """Whether the policy starts as the reference model, in the same number format."""
        if not self._arguments:
            return False
        model, tuning = self._arguments
        same = tuning.ref_model in (None, model.model_name_or_path) and tuning.ref_model_adapters is None
        same = same and tuning.ref_model_quantization_bit is None and tuning.finetuning_type in ("full", "freeze")
        # LLaMA-Factory trains in float32 what it loads as a reference in half precision; DeepSpeed converts it back.
        formats = {parameter.dtype for parameter in policy.parameters()}
        return same and (bool(args.deepspeed) or formats == {policy.config.dtype})

    def identity(self) -> list[Any]:
        """What identifies this reference model; the trainer adds the policy's configuration."""
        if not self._arguments:
            return []
        model, tuning = self._arguments
        adapters = [*(model.adapter_name_or_path or []), *_listed(tuning.ref_model_adapters)]
        settings = (model.model_revision, model.quantization_bit, model.quantization_method, model.double_quantization)
        return [
            model_identity(tuning.ref_model or model.model_name_or_path),
            [model_identity(adapter) for adapter in adapters],
            [str(setting) for setting in settings],
            [tuning.create_new_adapter, tuning.ref_model_quantization_bit, tuning.finetuning_type],
        ]


def _listed(adapters: Any) -> list[str]:
    return adapters.split(",") if isinstance(adapters, str) else list(adapters or [])
