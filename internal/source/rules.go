package source

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// ReadRules reads a file of filter rules as git reads .gitignore: one a line,
// blank lines and those that start with "#" left out, so that `\#` stands for
// a leading "#". It checks nothing; that is for [NewFilter].
func ReadRules(r io.Reader) ([]string, error) {
	var rules []string
	lines := bufio.NewScanner(r)
	first := true
	for lines.Scan() {
		text := strings.TrimSuffix(lines.Text(), "\r")
		if first {
			text = strings.TrimPrefix(text, "\ufeff") // a byte order mark
			first = false
		}
		if text = trimRule(text); text != "" && text[0] != '#' {
			rules = append(rules, text)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read filter rules: %w", err)
	}
	return rules, nil
}

// trimRule takes off trailing spaces, but not one behind a backslash.
func trimRule(text string) string {
	trimmed := strings.TrimRight(text, " ")
	if len(trimmed) == len(text) {
		return text
	}
	backslashes := len(trimmed) - len(strings.TrimRight(trimmed, `\`))
	if backslashes%2 == 1 {
		trimmed += " "
	}
	return trimmed
}
