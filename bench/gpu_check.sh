#!/usr/bin/env bash
# Build, test and time the engine on a machine with a GPU and no network, in under nine minutes:
#
#     bash bench/gpu_check.sh
#
# Needs cmake, ninja, pybind11, torch, numpy, pytest and hypothesis; RDKit is not used. Works on a copy in a temporary
# folder and leaves the checkout alone, except for the JSON results and the log, which go to $OUT or bench/results.
# Without a GPU it builds the CUDA kernels if nvcc is there, tests the CPU ones, and says what it skipped.
# PYTHON names the interpreter (python3), CUDAARCHS the architecture (90). Exit status 1 if any step failed.
set -u
root=$(cd "$(dirname "$0")/.." && pwd)
results=${OUT:-$root/bench/results}
python=${PYTHON:-python3}
export CUDAARCHS=${CUDAARCHS:-90} PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
PATH=$("$python" -c 'import sysconfig; print(sysconfig.get_path("scripts"))'):$PATH:/usr/local/cuda/bin
mkdir -p "$results"
log=$results/gpu_check.log
: >"$log"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

budget=530
table=()
failed=0

note() { # note NAME RESULT DETAIL
  table+=("$(printf '%-22s %-8s %s' "$1" "$2" "$3")")
}

step() { # step NAME SECONDS COMMAND...: run it under a time limit, log it, keep the outcome
  local name=$1 limit=$2 began=$SECONDS status
  shift 2
  ((limit > budget - began)) && limit=$((budget - began))
  if ((limit < 5)); then
    note "$name" FAILED "no time left"
    failed=1
    return 1
  fi
  printf '\n==== %s\n' "$name" >>"$log"
  local start
  start=$(wc -l <"$log")
  timeout -k 10 "$limit" "$@" >>"$log" 2>&1
  status=$?
  if ((status == 0)); then
    note "$name" ok "$((SECONDS - began)) s  $(tail -n +"$((start + 1))" "$log" | grep -E '^[0-9]+ passed' | tail -1)"
    return 0
  fi
  failed=1
  note "$name" FAILED "status $status after $((SECONDS - began)) s (limit $limit s)"
  echo "---- $name failed, its last lines:"
  tail -n +"$((start + 1))" "$log" | tail -40
  return 1
}

skip() { note "$1" skipped "$2"; }

gpu=0
"$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' 2>>"$log" && gpu=1
cuda=OFF
command -v nvcc >/dev/null && cuda=ON

build() {
  cmake -S "$root" -B "$work/build" -G Ninja -DGRAPHGEN_CUDA=$cuda -DPython_EXECUTABLE="$(command -v "$python")" \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" && cmake --build "$work/build"
}
export -f build
export root work cuda python

if ! step "build (CUDA $cuda)" 280 bash -c build; then
  printf '%s\n' "${table[@]}"
  exit 1
fi
spilling=$(grep -cE '[1-9][0-9]* bytes spill' "$log")
[ $cuda = ON ] && note "register spills" "$([ "$spilling" = 0 ] && echo none || echo seen)" "$spilling kernels"

# The tests run on a copy, so that nothing imports the checkout.
mkdir "$work/copy"
cp -r "$root"/graphgen "$root"/tests "$root"/bench "$root"/csrc "$root"/pyproject.toml "$work/copy"
rm -f "$work"/copy/graphgen/_C*.so
cp "$work"/build/_C*.so "$work/copy/graphgen"
cd "$work/copy" || exit 1
export PYTHONPATH=$work/copy
pytest=("$python" -m pytest -p no:cacheprovider -rs)

# On a GPU the device's own tests come first: they are what the time is for.
if ((gpu)) && [ $cuda = ON ]; then
  step "CUDA tests" 170 "${pytest[@]}" tests/test_cuda.py tests/test_cuda_segments.py tests/test_cuda_stepping.py \
    tests/test_cuda_odeint.py tests/test_cuda_brownian.py tests/test_cuda_pairs.py
  if command -v compute-sanitizer >/dev/null; then
    # Without the caching allocator every tensor is an allocation of its own, whose ends memcheck can see.
    PYTORCH_NO_CUDA_MEMORY_CACHING=1 step "memcheck" 90 \
      compute-sanitizer --tool memcheck --error-exitcode 9 --kernel-name-exclude regex=at:: "${pytest[@]}" -x \
      'tests/test_cuda.py::test_message_passing_values[33-dtype0]' \
      'tests/test_cuda.py::test_message_passing_values[5-dtype2]' \
      'tests/test_cuda.py::test_message_sum_gradients[129-silu-dtype0]' \
      'tests/test_cuda.py::test_dense_values[67-5-dtype0]' \
      'tests/test_cuda_pairs.py::test_normal_rows_in_products[33-32-dtype0]' \
      'tests/test_cuda_pairs.py::test_pair_update[sizes4-7-3-dtype0]' \
      'tests/test_cuda_pairs.py::test_pair_attention[sizes4-6-2-dtype0]' \
      tests/test_cuda.py::test_views_that_start_between_packs
  else
    skip "memcheck" "no compute-sanitizer"
  fi
  device=cuda rounds=21
else
  why="torch sees no CUDA device"
  ((gpu)) && why="no nvcc"
  for name in "CUDA tests" "memcheck" "CUDA benchmarks"; do skip "$name" "$why"; done
  step "CPU tests" 300 "${pytest[@]}" tests/test_graph.py tests/ops
  device=cpu rounds=2 # only to see that they run
fi

for name in roofline bench_message_passing bench_dense bench_noise bench_trace bench_stepping bench_sampling bench_pairs; do
  if step "$name ($device)" 90 "$python" "bench/$name.py" --device $device --rounds $rounds --json "$results/$name.$device.json"; then
    echo
    awk -v mark="==== $name ($device)" '$0 == mark {found = 1; next} found' "$log"
  fi
done

echo
printf '%s\n' "${table[@]}"
echo "log and JSON in $results, $SECONDS s in all"
exit $failed
