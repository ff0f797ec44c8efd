package main

// A count is a number that not every system has.
type count struct {
	n     int64
	valid bool
}

func known(n int64) count { return count{n, true} }

func (c count) less(d count) count { return count{c.n - d.n, c.valid && d.valid} }

// text writes c as format does, or a dash.
func (c count) text(format func(int64) string) string {
	if !c.valid {
		return "–"
	}
	return format(c.n)
}
