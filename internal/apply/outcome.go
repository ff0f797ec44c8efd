package apply

// An Outcome is what became of one entry.
type Outcome int

// The outcomes. All of them are done: durable, and to be acked.
const (
	Unchanged Outcome = iota // the path was already right
	Created                  // nothing stood there
	Updated                  // something else stood there
	Deleted                  // a tombstone took something away
	Skipped                  // left as it is, by an option or a missing right
)

var outcomeNames = [...]string{"unchanged", "created", "updated", "deleted", "skipped"}

// String returns the outcome in lower case.
func (o Outcome) String() string {
	if o < 0 || int(o) >= len(outcomeNames) {
		return "unknown"
	}
	return outcomeNames[o]
}

// A Result says what became of one entry of a group: Outcome if Err is nil.
// Err is a *[StepError]. Itemized says as rsync -i what was changed, if
// anything was; of a file's bytes it tells the size, as rsync does without -c.
type Result struct {
	Outcome  Outcome
	Itemized string
	Err      error
}
