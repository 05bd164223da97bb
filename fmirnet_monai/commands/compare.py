"""Commands that measure methods and networks."""

from __future__ import annotations

from collections.abc import Sequence

import fmirnet_monai as fm


def compare(
    *,
    datalist: str,
    output_dir: str,
    methods: Sequence[str] = (
        "identity",
        "affine",
        "elastix",
        "syn",
        "demons",
        "optimise",
        "fmirnet",
        "fmirnet+refine",
    ),
    section: str = "test",
    tuned: str | None = None,
    spatial_size: int | None = None,
    count: int | None = None,
    bundle: str = "fmirnet_chaos",
    trust_bundle: bool = False,
    models_dir: str | None = None,
    affine: str = "off",
    intensity: str = "bundle",
    device: str = "auto",
    title: str = "",
    pictures: int = 3,
    memory: bool = False,
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Run several methods on the same pairs, measure them alike and write one table and one figure.

    Writes comparison.md, .csv (every case), .json and .png. Started again, it goes on where it broke off. A case that
    fails is marked in the table, and run again then, as is one whose files or weights have changed. "compare tune"
    finds the settings of each method first; see its --help.

    Args:
        datalist: JSON datalist of pairs.
        output_dir: folder to write.
        methods: rows, separated by commas; p-values are against the first. There are the classical identity, affine,
            elastix, syn, lddmm, demons, lcc_demons, greedy, convexadam (of volumes), optimise (no network), and the
            learned fmirnet and any config of the bundle's configs/variants, such as voxelmorph; with +refine behind a
            network, its field is refined.
        section: section of the datalist.
        tuned: JSON file of "compare tune", whose settings are taken.
        spatial_size: resample both images to square voxels, so many along the longest side; by default each image's
            own grid.
        count: only so many pairs, spread evenly; by default all.
        bundle: bundle whose networks and intensities are taken.
        trust_bundle: as in register.
        models_dir: folder of the training runs, NAME/model.pt for each learned method; by default the bundle's weights
            for fmirnet.
        affine: stage before every method but identity: off, translation, rigid or affine.
        intensity: bundle (its own map to 0..1) or percentiles of each image.
        device: auto, cpu, cuda, mps; of networks and optimisation.
        title: of the table.
        pictures: cases in the figure.
        memory: measure each method's peak memory too, on its first case, which takes some seconds a method.
        workers: so many processes of this computer, which share its cores; seconds are then not those of a case alone.
            By default one case after the other.
        scheduler: a Dask cluster, as in register.
    """
    helpers = fm.workers.Workers(workers, scheduler)
    cases = fm.study.Cases(datalist, section, spatial_size, count)
    context = _context(bundle, models_dir, affine, intensity, device, trust_bundle, helpers)
    specs = fm.study.parse_methods(methods, tuned)
    print(fm.study.compare(cases, specs, output_dir, context, title, pictures, memory, workers=helpers))
    if failed := fm.study.failed_cases(output_dir):
        raise ValueError(
            f"cases that failed and are left out of {output_dir}/comparison.md: {len(failed)}, the first {failed[0]} "
            "Started again, they are run again."
        )


def compare_tune(
    *,
    datalist: str,
    output: str,
    methods: Sequence[str] = ("elastix", "syn", "lddmm", "demons", "optimise", "fmirnet+refine"),
    section: str = "validation",
    spatial_size: int | None = None,
    count: int = 40,
    bundle: str = "fmirnet_chaos",
    trust_bundle: bool = False,
    models_dir: str | None = None,
    max_epochs: int = 3,
    affine: str = "off",
    intensity: str = "bundle",
    device: str = "auto",
    workers: int | None = None,
    scheduler: str | None = None,
) -> None:
    """Search the settings of each method on validation pairs and store the best, for "compare --tuned".

    The mean Dice decides (TRE or SSIM where there are no labels) among the settings that fold less than 1 % of the
    cells. Started again, the search goes on where it broke off.

    Args:
        datalist: JSON datalist of pairs.
        output: JSON file to write; it holds every trial.
        methods: methods to tune; each has its own small grid.
        section: section of the datalist; never the one that is compared on.
        spatial_size: as in compare.
        count: pairs to try on, spread evenly over the section.
        bundle: as in compare.
        trust_bundle: as in compare.
        models_dir: folder for the runs that try a network's loss weights; for +refine as in compare.
        max_epochs: of each of those runs.
        affine: as in compare.
        intensity: as in compare.
        device: as in compare.
        workers: so many processes of this computer, which share its cores; by default as many trials run at a time as
            torch has threads. Networks are trained by this process.
        scheduler: a Dask cluster, as in register.
    """
    helpers = fm.workers.Workers(workers, scheduler)
    cases = fm.study.Cases(datalist, section, spatial_size, count)
    context = _context(bundle, models_dir, affine, intensity, device, trust_bundle, helpers)
    specs = fm.study.parse_methods(methods)
    print(fm.study.trials_table(fm.study.tune(cases, specs, output, context, {"max_epochs": max_epochs}, helpers)))


def table(
    *, study: str, source_dir: str, work_dir: str, results_dir: str | None = None, keep: Sequence[str] = ()
) -> None:
    """Make a whole table from raw data: prepare the pairs, tune, train and compare.

    Started again, it goes on where it broke off; nothing that is done is done again.

    Args:
        study: JSON file that describes the table, such as benchmarks/table2.json.
        source_dir: folder of the raw data sets.
        work_dir: folder for prepared data, training runs, cases and figures.
        results_dir: folder that also gets the table as .md, .csv and .json; no images.
        keep: methods, such as voxelmorph,vtn, or of a table of segmentation models, such as fcn_all,unet_all, whose
            rows in results_dir stay where their settings are the same: what took hours to train need not be run again
            to add a row.
    """
    print(fm.study.run_study(study, source_dir, work_dir, results_dir, keep))


def profile(
    *,
    bundle: str,
    spatial_size: Sequence[int] | None = None,
    batch_size: int = 1,
    variant: str | None = None,
    trust_bundle: bool = False,
    amp: bool = False,
    device: str = "auto",
    repeats: int = 3,
) -> None:
    """Print what a prediction and a training step of a bundle's network take: operations, seconds, peak memory.

    Args:
        bundle: name or folder of a registration bundle.
        spatial_size: of the images, one number for all axes or one each; default the bundle's.
        batch_size: pairs at a time.
        variant: config in the bundle's configs/variants.
        trust_bundle: as in register.
        amp: mixed precision.
        device: auto, cpu, cuda, cuda:1, mps.
        repeats: timed repetitions, of which the median is given.
    """
    size = None if spatial_size is None else tuple(spatial_size)
    chosen = str(fm.workflow.Method(device=device).torch_device())
    work = [
        fm.profile.Workload(bundle, size, batch_size, what, variant, amp, chosen, trust_bundle)
        for what in (fm.profile.PREDICTION, fm.profile.TRAINING)
    ]
    print(fm.profile.profile_table(work, repeats), end="")


def _context(
    bundle: str,
    models_dir: str | None,
    affine: str,
    intensity: str,
    device: str,
    trust_bundle: bool,
    workers: fm.workers.Workers,
) -> fm.study.Context:
    if intensity not in ("bundle", "percentiles"):
        raise ValueError(f"intensity must be bundle or percentiles, got {intensity!r}.")
    here = workers.scheduler is None  # a cluster's workers have devices of their own
    chosen = str(fm.workflow.Method(device=device).torch_device()) if here else device
    return fm.study.Context(bundle, models_dir, affine, intensity, chosen, trust_bundle=trust_bundle)
