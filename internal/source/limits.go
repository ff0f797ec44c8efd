package source

import (
	"errors"
	"log/slog"
	"os"
	"strconv"
	"strings"
)

// queueLimit is the number of events that the kernel should keep for us: a
// directory of 100,000 files copied in is several each, and a queued event
// costs up to 300 bytes of kernel memory. It is not reserved.
const queueLimit = 262_144

// raiseQueueLimit raises the length of the inotify queues made from now on,
// which file has, if it is lower and we may. If not, an overflow costs a rescan,
// nothing else.
func raiseQueueLimit(file string, log *slog.Logger) {
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || now >= queueLimit {
		return
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	_, err = f.WriteString(strconv.Itoa(queueLimit))
	if err = errors.Join(err, f.Close()); err != nil {
		return
	}
	log.Info("raised fs.inotify.max_queued_events to 262144")
}
