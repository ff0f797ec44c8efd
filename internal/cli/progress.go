package cli

import (
	"io"

	"github.com/schollz/progressbar/v3"
)

// Progress returns a function that draws a bar on a terminal, nil if stderr is
// none. It begins anew when done does not grow; total may change meanwhile.
func Progress(stderr io.Writer, what string) func(done, total int) {
	if !Terminal(stderr) {
		return nil
	}
	var bar *progressbar.ProgressBar
	last, of := 0, 0
	return func(done, total int) {
		if bar == nil || done < last || bar.IsFinished() {
			bar = progressbar.NewOptions(total, progressbar.OptionSetWriter(stderr), progressbar.OptionSetDescription(what),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(100e6))
		}
		if total != of {
			bar.ChangeMax(total)
		}
		last, of = done, total
		_ = bar.Set(done) // a bar that cannot be drawn is no one's loss
	}
}
