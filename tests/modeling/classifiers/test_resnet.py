"""ResNet-18's trunk: inflation, reach along z, weights."""

import pytest
import torch
import torchvision

from lens_d2.io.errors import DataError
from lens_d2.modeling.classifiers import ResNet3D, load_resnet18_weights


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(0)
    network = torchvision.models.resnet18()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.eval()


def test_an_inflated_network_gives_for_a_constant_volume_what_the_2d_one_gives(tmp_path, resnet18):
    torch.save(resnet18.state_dict(), tmp_path / "resnet18.pth")
    trunk = ResNet3D().eval()
    load_resnet18_weights(trunk, str(tmp_path / "resnet18.pth"))
    picture = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        outputs = trunk(picture[:, :, None].expand(-1, -1, 5, -1, -1))
        flat = resnet18.maxpool(resnet18.relu(resnet18.bn1(resnet18.conv1(picture.expand(-1, 3, -1, -1)))))
        for number, output in enumerate(outputs):
            flat = getattr(resnet18, f"layer{number + 1}")(flat)
            assert output.shape == (2, 64 * 2**number, 5, 16 >> number, 16 >> number)
            torch.testing.assert_close(output, flat[:, :, None].expand_as(output), rtol=1e-4, atol=1e-4)


def test_kernels_reach_along_z_in_block_4_alone():
    trunk = ResNet3D(4).eval()
    kernels = {name: m.kernel_size for name, m in trunk.named_modules() if isinstance(m, torch.nn.Conv3d)}
    assert kernels["conv1"] == (1, 7, 7) and kernels["layer3.1.conv2"] == (1, 3, 3)
    assert kernels["layer4.0.conv1"] == (3, 3, 3) and kernels["layer4.0.downsample.0"] == (1, 1, 1)
    volume = torch.randn(1, 1, 5, 32, 32)
    other = volume.clone()
    other[:, :, 2] += 1
    with torch.no_grad():
        changed = [
            (a != b).any(dim=(0, 1, 3, 4)).tolist() for a, b in zip(trunk(volume), trunk(other), strict=True)
        ]
    assert changed[:3] == [[False, False, True, False, False]] * 3 and changed[3] == [True] * 5


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    with pytest.raises(DataError, match="another architecture.*shape"):
        load_resnet18_weights(ResNet3D(8), str(tmp_path / "resnet18.pth"))
    torch.save({"features.conv0.weight": torch.zeros(1)}, tmp_path / "densenet.pth")
    with pytest.raises(DataError, match="no key is one of"):
        load_resnet18_weights(ResNet3D(8), str(tmp_path / "densenet.pth"))


def test_depth_shrinks_where_the_config_says():
    trunk = ResNet3D(4, (3, 3, 3, 3), (1, 2, 2, 2)).eval()
    with torch.no_grad():
        shapes = [tuple(output.shape[2:]) for output in trunk(torch.zeros(1, 1, 16, 64, 64))]
    assert shapes == [(16, 16, 16), (8, 8, 8), (4, 4, 4), (2, 2, 2)]
