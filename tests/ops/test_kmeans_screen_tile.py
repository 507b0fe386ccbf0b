"""The CUDA screen's index arithmetic: every element of a tile belongs to exactly one thread."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAM = """
#include "kmeans_assign/cuda/float32/screen_tile.h"
#include <cstdio>
#include <set>
#include <utility>
using namespace ktfast::cuda;
int main() {
  std::set<std::pair<int, int>> x, c;
  for (int thread = 0; thread < kScreenThreads; ++thread) {
    for (int i = 0; i < kStageFloats; ++i) {
      x.insert({staged_row_feature(thread, i), staged_row(thread)});
      c.insert({staged_center_feature(thread, i), staged_center(thread)});
    }
  }
  std::set<int> centers;
  for (int group = 0; group < kScreenClasses; ++group) {
    for (int i = 0; i < kThreadCenters; ++i) centers.insert(center_in_tile(group, i));
    if (first_in_class(group, 5) >= 5 || first_in_class(group, 1000) != center_in_tile(group, 0))
      return 1;
  }
  const std::size_t size = kScreenFeatures * kScreenRows;
  const bool inside = x.rbegin()->first == kScreenFeatures - 1 && x.begin()->first == 0 &&
                      c.rbegin()->first == kScreenFeatures - 1 && *centers.rbegin() == 127;
  return x.size() == size && c.size() == size && centers.size() == 128 && inside ? 0 : 2;
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++")
def test_every_element_is_staged_once(tmp_path):
    source = tmp_path / "tile.cpp"
    source.write_text(PROGRAM)
    include = Path(__file__).parents[2] / "csrc"
    subprocess.run(
        ["g++", "-std=c++17", f"-I{include}", source, "-o", tmp_path / "tile"], check=True
    )
    assert subprocess.run([tmp_path / "tile"], check=False).returncode == 0
