"""A configuration for everyone: what is public stays, what names a place or a site goes."""

import hashlib
import json

from configs.compose import compose
from configs.loader import dump, load
from server.config import RunConfig
from server.public_config import public_config


def shown(*overrides):
    return public_config(dump(load(RunConfig, compose("run", list(overrides)))))


def test_public_names_stay_and_the_names_of_sites_become_their_number():
    config = shown(
        "init.vision=vit_base_patch16_224",
        "init.text=owner/bert",
        "federation.only=[north,south]",
        "federation.sites=2",
        "run_id=lung-1",
        "output_dir=/srv/north",
    )
    assert config["init"] == {"vision": "vit_base_patch16_224", "text": "owner/bert"}
    assert config["federation"]["only"] == 2
    assert config["vocabulary"] == "phantom"
    assert not {"run_id", "output_dir"} & config.keys()
    assert "north" not in json.dumps(config)


def test_files_go_by_their_digest_and_missing_ones_without_their_name(tmp_path):
    weights = tmp_path / "north" / "weights.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    assert shown(f"initial_weights={weights}")["initial_weights"] == f"a file, sha256 {digest}"
    assert shown(f"init.vision={weights}")["init"]["vision"] == f"a file, sha256 {digest}"
    for place in (f"vocabulary={tmp_path}/none.txt", "init.text='~/north/bert'"):
        text = json.dumps(shown(place))
        assert "files that are no longer there" in text
        assert str(tmp_path) not in text
        assert "north" not in text
