package source

import (
	"log/slog"
	"os"
	"strconv"
	"strings"
)

const queueLimitFile = "/proc/sys/fs/inotify/max_queued_events"

// queueLimit is the number of events that the kernel should keep for us: a
// directory of 100,000 files copied in is several each, and a queued event
// costs up to 300 bytes of kernel memory. It is not reserved.
const queueLimit = 262_144

// raiseQueueLimit raises the length of the inotify queues made from now on, if
// it is lower and we may. If not, an overflow costs a rescan, nothing else.
func raiseQueueLimit(log *slog.Logger) {
	text, err := os.ReadFile(queueLimitFile)
	if err != nil {
		return
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || now >= queueLimit {
		return
	}
	if err := os.WriteFile(queueLimitFile, []byte(strconv.Itoa(queueLimit)), 0); err != nil {
		return
	}
	log.Info("raised fs.inotify.max_queued_events to 262144")
}
