package spec

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time span that a definition names: a Go duration, or whole
// days (`7d`). Its text is canonical, so that `60s` and `1m` are equal bytes.
type Duration time.Duration

// D is the span as package time's type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String is the canonical text: Go's, without zero parts (`6h`, not `6h0m0s`).
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// MarshalText is String.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is ParseDuration.
func (d *Duration) UnmarshalText(text []byte) (err error) {
	*d, err = ParseDuration(string(text))
	return err
}

// ParseDuration reads Go durations and whole or fractional days (`7d`).
// Negative spans are refused.
func ParseDuration(s string) (Duration, error) {
	text := strings.TrimSpace(s)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err == nil && n >= 0 && n*24*float64(time.Hour) < math.MaxInt64 {
			return Duration(n * 24 * float64(time.Hour)), nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is no time span; write a number and a unit, as 500ms, 30s, 15m, 6h or 7d", s)
	}
	return Duration(d), nil
}

var sizeUnits = []struct {
	suffix string
	factor float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// ParseSize reads a size in bytes: `512MiB`, `2GiB`, `10MB`, `4096`.
func ParseSize(s string) (int64, error) {
	text := strings.TrimSpace(s)
	factor := 1.0
	for _, u := range sizeUnits {
		if n, ok := strings.CutSuffix(text, u.suffix); ok {
			text, factor = strings.TrimSpace(n), u.factor
			break
		}
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 && n <= math.MaxInt64/int64(factor) {
		return n * int64(factor), nil // exact, where a float has 53 bits
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil || n < 0 || n*factor >= math.MaxInt64 || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is no size; write a number and a unit, as 512MiB or 2GiB", s)
	}
	return int64(n * factor), nil
}

// FormatSize is the canonical text of a size in bytes: the largest binary
// unit that divides it (`10MiB`, `1536B`). ParseSize(FormatSize(n)) == n.
func FormatSize(n int64) string {
	for i, u := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if unit := int64(1) << (40 - 10*i); n >= unit && n%unit == 0 {
			return strconv.FormatInt(n/unit, 10) + u
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}

// ParseQuantity reads one entry of a capacity or a demand: cpu in thousandths
// of a core (`4`, `0.5`), everything else as ParseSize does.
func ParseQuantity(name, text string) (int64, error) {
	if name != "cpu" {
		return ParseSize(text)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || n < 0 || n*1000 >= math.MaxInt64 || math.IsNaN(n) {
		return 0, fmt.Errorf("%q is no number of processors; write 4 or 0.5", text)
	}
	return int64(math.Round(n * 1000)), nil
}
