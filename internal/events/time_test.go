package events_test

import (
	"errors"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"treecast/internal/events"
)

func TestTime(t *testing.T) {
	for _, c := range []struct {
		time events.Time
		text string
	}{
		{events.Time{}, "0"},
		{events.Time{Nsec: 1}, "1"},
		{events.Time{Nsec: 999_999_999}, "999999999"},
		{events.Time{Sec: 1}, "1000000000"},
		{events.Time{Sec: 1_759_000_000, Nsec: 123_456_789}, "1759000000123456789"},
		{events.Time{Sec: -1, Nsec: 999_999_999}, "-1"},
		{events.Time{Sec: -1}, "-1000000000"},
		{events.Time{Sec: -2, Nsec: 999_999_999}, "-1000000001"},
		{events.Time{Sec: -1, Nsec: 1}, "-999999999"},
		{events.Time{Sec: -2_208_988_800}, "-2208988800000000000"},               // 1900
		{events.Time{Sec: 16_299_158_400, Nsec: 1}, "16299158400000000001"},      // 2486, over int64
		{events.Time{Sec: 1 << 40, Nsec: 999_999_999}, "1099511627776999999999"}, // the last one
		{events.Time{Sec: -(1 << 40)}, "-1099511627776000000000"},                // the first one
		{events.Time{Sec: -(1 << 40), Nsec: 1}, "-1099511627775999999999"},
	} {
		if got := c.time.String(); got != c.text {
			t.Errorf("%+v: got %s, want %s", c.time, got, c.text)
		}
		if got, err := events.ParseTime(c.text); err != nil || got != c.time {
			t.Errorf("%s: got %+v, %v, want %+v", c.text, got, err, c.time)
		}
	}
}

func TestParseTimeRefuses(t *testing.T) {
	for _, s := range []string{"", "-", "-0", "00", "01", "+1", " 1", "1 ", "1.5", "1e9", "0x1", "1_000", "--1", "1-",
		"١", "NaN", "1099511627777000000000", "-1099511627776000000001",
		"9223372036854775808000000000", "999999999999999999999999", strings.Repeat("9", 1<<20)} {
		got, err := events.ParseTime(s)
		if !errors.Is(err, events.ErrEntry) || got != (events.Time{}) {
			t.Errorf("%.40q: got %+v, %v, want ErrEntry", s, got, err)
		}
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("error of %d bytes", len(err.Error()))
		}
	}
}

func TestTimeCompare(t *testing.T) {
	order := []events.Time{{Sec: -2, Nsec: 5}, {Sec: -1}, {Sec: -1, Nsec: 1}, {}, {Nsec: 1}, {Sec: 1}, {Sec: 1, Nsec: 1}}
	for i, a := range order {
		for j, b := range order {
			if got := a.Compare(b); (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("%+v to %+v: %d", a, b, got)
			}
		}
	}
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"", "-", "0", "-1", "999999999", "1000000000", "-1000000001", "1759000000123456789",
		"1099511627776999999999", "-1099511627776000000001", "+5", "-0"} {
		f.Add(s, int64(math.MinInt64), int32(-1))
	}
	f.Add("", int64(1)<<40, int32(999_999_999))
	f.Fuzz(func(t *testing.T, s string, sec int64, nsec int32) {
		got, err := events.ParseTime(s)
		if err == nil {
			if got.String() != s || got.Nsec < 0 || got.Nsec >= 1e9 {
				t.Fatalf("%q became %+v", s, got)
			}
			if want, ok := new(big.Int).SetString(s, 10); !ok || nanoseconds(got).Cmp(want) != 0 {
				t.Fatalf("%q became %+v", s, got)
			}
		} else if !errors.Is(err, events.ErrEntry) {
			t.Fatalf("not ErrEntry: %v", err)
		}
		in := events.Time{Sec: sec % (1 << 40), Nsec: int32(uint32(nsec) % 1e9)}
		text := in.String()
		if text != nanoseconds(in).String() {
			t.Fatalf("%+v became %s", in, text)
		}
		if out, err := events.ParseTime(text); err != nil || out != in {
			t.Fatalf("%+v became %s became %+v: %v", in, text, out, err)
		}
		_ = events.Time{Sec: sec, Nsec: nsec}.String() // whatever lstat says
		_, _ = events.ParseTime(strconv.FormatInt(sec, 10))
	})
}

func nanoseconds(t events.Time) *big.Int {
	n := big.NewInt(t.Sec)
	return n.Mul(n, big.NewInt(1e9)).Add(n, big.NewInt(int64(t.Nsec)))
}
