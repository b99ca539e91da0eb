# shellcheck shell=bash
# Stand-in for CANN's: reads unset variables, so that a caller under "set -u" would be aborted, and ends in a failing command.
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH="$here/bin:$PATH"
export PYTHONPATH="$here/site:$PYTHONPATH"
export LD_LIBRARY_PATH="$here/lib:$LD_LIBRARY_PATH"
export ASCEND_TOOLKIT_HOME="$here/toolkit"
[ -n "$ASCEND_NEVER_SET" ]
