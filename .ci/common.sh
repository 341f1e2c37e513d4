# What the scripts of this folder share; they source it.

# A copy of the checkout in $work/irjax, removed at the end, so that nothing already built or installed can help.
copy_checkout() {
  local root
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  mkdir "$work/irjax"
  cd "$root"
  # What git tracks, and new files it does not ignore; deleted ones are listed but absent.
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' file; do if [ -e "$file" ]; then printf '%s\0' "$file"; fi; done |
    xargs -0 cp --parents --no-dereference --target-directory="$work/irjax"
  # Tests on real images look for this folder beside the checkout, and are skipped without it.
  if [ -d "$root/../shared" ]; then ln -s "$(cd "$root/../shared" && pwd)" "$work/shared"; fi
  cd "$work/irjax"
}

# README's test command as written.
readme_tests() {
  local command
  command=$(sed -n '/<!-- test command -->/,/^```$/p' README.md | grep -v -e '<!--' -e '^```' -e '^$')
  echo "+ $command"
  bash -euo pipefail -c "$command" </dev/null
}
