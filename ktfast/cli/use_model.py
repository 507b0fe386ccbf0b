"""The commands that use a finished run: `ktfast embed`, `ktfast assign` and `ktfast export`."""

import argparse
from typing import Any

from ktfast.cli.printing import print_line
from ktfast.durable import check_place
from ktfast.errors import ConfigError, shown
from ktfast.remote import argument_path, check_apart

_PHOTOGRAPHS = "folder of photographs, at any depth; or tar or Parquet files, or a URL of them"


def add_commands(commands: Any) -> None:
    """Add the sub-commands to the parser of the command line."""
    embed = commands.add_parser("embed", help="turn photographs into vectors, by a trained network")
    _add_model(embed)
    embed.add_argument("photographs", type=argument_path, help=_PHOTOGRAPHS)
    embed.add_argument(
        "-o",
        "--out",
        type=argument_path,
        required=True,
        help="file of vectors: .npz, .csv or .parquet",
    )
    embed.add_argument(
        "--batch-size", type=int, default=64, help="photographs at a time (default: 64)"
    )
    embed.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    embed.set_defaults(command="embed")

    assign = commands.add_parser("assign", help="give new photographs the clusters of a run")
    assign.add_argument("run", type=argument_path, help="run folder with a finished stage cluster")
    assign.add_argument("photographs", type=argument_path, help=_PHOTOGRAPHS)
    assign.add_argument(
        "-o",
        "--out",
        type=argument_path,
        required=True,
        help="CSV file of path, cluster and distance",
    )
    assign.add_argument(
        "--trust-source",
        action="store_true",
        help="allow features.source of the run to call a function of a Python module",
    )
    assign.set_defaults(command="assign")

    export = commands.add_parser("export", help="write a trained network for use without ktfast")
    _add_model(export)
    export.add_argument(
        "-o", "--out", type=argument_path, required=True, help="file: .safetensors, .pt2 or .onnx"
    )
    export.set_defaults(command="export")


def _add_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", type=argument_path, help="run folder, or a weights.safetensors of a run"
    )
    parser.add_argument(
        "--stage",
        default="transfer",
        help="stage of the run folder that trained the network (default: transfer)",
    )
    parser.add_argument(
        "--layer", help="layer whose map gives the vectors (default: the last layer)"
    )


def embed(options: argparse.Namespace) -> int:
    """Run `ktfast embed`; return the exit status."""
    from ktfast.pipeline.embed_folder import embed_folder
    from ktfast.pipeline.image_model import load

    check_apart(options.out, [options.photographs], (".parquet",))
    model = load(options.model, options.stage, layer=options.layer, device=options.device)
    n = embed_folder(model, options.photographs, options.out, batch_size=options.batch_size)
    print_line(f"{options.out}: {n} vectors of {model.dim} values from layer {model.layer}")
    return 0


def assign(options: argparse.Namespace) -> int:
    """Run `ktfast assign`; return the exit status."""
    from ktfast.pipeline.assign_folder import assign_folder

    if options.out.suffix != ".csv":
        raise ConfigError(f"{shown(options.out)}: give a file name that ends in .csv")
    check_place(options.out)
    found = assign_folder(options.run, options.photographs, trust_source=options.trust_source)
    found.write_csv(options.out)
    print_line(f"{options.out}: {len(found.paths)} photographs, {len(found.skipped)} left out")
    return 0


def export(options: argparse.Namespace) -> int:
    """Run `ktfast export`; return the exit status."""
    from ktfast.pipeline.export_model import export_model
    from ktfast.pipeline.image_model import load

    stored = options.model / options.stage / "weights.safetensors"
    check_apart(options.out, [options.model, stored])
    weights_only = options.out.suffix == ".safetensors"
    if weights_only and options.layer is not None:
        raise ConfigError(
            f"--layer {options.layer} has no effect on {shown(options.out)}, which holds the "
            "weights of all layers; leave --layer out, or write a .pt2 or .onnx file"
        )
    model = load(options.model, options.stage, layer=options.layer)
    difference = export_model(model, options.out)
    print_line(
        f"{options.out}: the weights of all layers, under torchvision's names"
        if weights_only
        else f"{options.out}: vectors differ by at most {difference:.1g} of the largest value"
    )
    return 0
