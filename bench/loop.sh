#!/bin/sh
# loop.sh SOURCE TARGET...
#
# Keeps targets equal to a source in the way that has been passed on since 2011:
# each event, one rsync to each target, one after the other.
source=$1
shift

push() {
	for target; do
		rsync -az --delete "$source/" "$target"
	done
}

push "$@"
inotifywait -mrq -e modify,create,delete,attrib,move "$source" | while read -r event; do
	push "$@"
done
