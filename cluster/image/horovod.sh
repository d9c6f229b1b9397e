#!/usr/bin/env bash
# Builds Horovod for the PyTorch that `python` has, with Gloo alone.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

# Horovod's CMake insists on C++14, and PyTorch's headers want C++20.
cat >"$folder/c++20" <<'END'
#!/usr/bin/env bash
words=()
for word in "$@"; do
  [[ $word == -std=* ]] || words+=("$word")
done
exec g++ -std=gnu++20 "${words[@]}"
END
chmod +x "$folder/c++20"

export CXX="$folder/c++20" CMAKE_POLICY_VERSION_MINIMUM=3.5
export HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 HOROVOD_WITH_PYTORCH=1
export HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1

python=$(command -v python)
uv pip install --python "$python" --no-cache "setuptools<81" wheel packaging cffi cloudpickle psutil pyyaml
uv pip install --python "$python" --no-cache --no-build-isolation --no-deps "horovod==0.28.1"
python -c "import horovod.torch as hvd; hvd.init(); assert hvd.gloo_built(); hvd.shutdown()"
