package main

import (
	_ "embed"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/template"

	"treecast/bench/internal/rig"
)

//go:embed chart.svg
var chartSVG string

// A chart has the times of the table as bars: a group for each row, a bar for
// each system. Its scale is logarithmic.
type chart struct {
	Title         string
	Width, Height int
	Left, Right   int // where bars may begin and end
	Bottom        int
	Lines         []chartLine
	Groups        []chartGroup
	Legend        []chartBar
}

// A chartLine is a line of the scale.
type chartLine struct {
	X     float64
	Label string
}

type chartGroup struct {
	Y     int
	Title string
	Bars  []chartBar
}

// A chartBar goes from the left to X; its whisker from Low to High.
type chartBar struct {
	Y            int
	Name, Color  string
	X, Low, High float64
	Label        string
}

const (
	barHeight = 14
	groupGap  = 30
)

// colors are told apart by most of those who do not see all of them; Okabe and
// Ito, "Color Universal Design".
var colors = map[string]string{
	"treecast": "#d55e00", "loop": "#0072b2", "lsyncd": "#56b4e9", "syncthing": "#009e73", "copy": "#999999",
}

// newChart draws what was measured in time. A system that failed has the reason
// in place of a bar, a row without any system is left out.
func newChart(r *report) chart {
	c := chart{Title: fmt.Sprintf("Seconds until the last of %d nodes has it: shorter is better, each line is ten times the one before", r.nodes), Width: 960, Left: 300, Right: 850}
	low, high := math.Inf(1), math.Inf(-1)
	eachBar := func(do func(row row, system string, all []float64, whys []string)) {
		for _, row := range r.rows {
			for _, system := range r.systems {
				all, whys := r.values(system, r.nodes, row.work, row.measure), r.whys(system, r.nodes, row.work)
				if row.timed() && len(all)+len(whys) > 0 {
					do(row, system, all, whys)
				}
			}
		}
	}
	eachBar(func(_ row, _ string, all []float64, _ []string) {
		for _, seconds := range all {
			low, high = min(low, seconds), max(high, seconds)
		}
	})
	if low > high {
		low, high = 1, 1 // nothing was measured
	}
	from, to := math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	x := func(seconds float64) float64 {
		return float64(c.Left) + (math.Log10(seconds)-from)/max(1, to-from)*float64(c.Right-c.Left)
	}

	y := 70
	eachBar(func(row row, system string, all []float64, whys []string) {
		if last := len(c.Groups) - 1; last < 0 || c.Groups[last].Title != row.label() {
			if last >= 0 {
				y += groupGap - barHeight
			}
			c.Groups = append(c.Groups, chartGroup{Y: y + barHeight - 3, Title: row.label()})
		}
		group := &c.Groups[len(c.Groups)-1]
		left := float64(c.Left)
		bar := chartBar{Y: y, Name: system, Color: colors[system], X: left, Low: left, High: left, Label: strings.Join(whys, ", ")}
		if len(all) > 0 {
			middle := rig.Median(all)
			bar.X, bar.Low, bar.High = x(middle), x(slices.Min(all)), x(slices.Max(all))
			bar.Label = strings.TrimSpace(seconds(middle) + " " + bar.Label)
		}
		group.Bars = append(group.Bars, bar)
		y += barHeight
	})
	c.Bottom, c.Height = y+6, y+20
	for power := from; power <= to; power++ {
		c.Lines = append(c.Lines, chartLine{x(math.Pow(10, power)), seconds(math.Pow(10, power))})
	}
	for i, system := range r.systems {
		c.Legend = append(c.Legend, chartBar{Y: 34, Name: system, Color: colors[system], X: float64(c.Left + 110*i)})
	}
	return c
}

func (c chart) write(w io.Writer) error {
	funcs := template.FuncMap{
		"plus":  func(a, b float64) float64 { return a + b },
		"minus": func(a float64, b int) float64 { return a - float64(b) },
		"below": func(y, d int) int { return y + d },
		"text":  template.HTMLEscapeString, // the five characters of XML
	}
	return template.Must(template.New("").Funcs(funcs).Parse(chartSVG)).Execute(w, c)
}
