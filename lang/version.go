package lang

import (
	"fmt"
	"strconv"
	"strings"
)

// satisfies tells whether a version meets a constraint such as
// ">= 0.1.0, < 2", "~> 1.2" or "1.0.3". Suffixes such as -dev don't count.
func satisfies(version, constraint string) (bool, error) {
	ok := true
	have, _, err := parseVersion(version)
	if version != "" && err != nil {
		return false, fmt.Errorf("this program's own version: %w", err)
	}
	for _, part := range strings.Split(constraint, ",") {
		part = strings.TrimSpace(part)
		text := strings.TrimLeft(part, "<>=!~")
		op := part[:len(part)-len(text)]
		want, n, err := parseVersion(text)
		if err != nil {
			return false, fmt.Errorf("%q is no version constraint; write one as \">= 0.1.0, < 2\" or \"~> 0.1\"", constraint)
		}
		cmp := 0
		for i := range have {
			if have[i] != want[i] {
				cmp = 1
				if have[i] < want[i] {
					cmp = -1
				}
				break
			}
		}
		switch op {
		case "", "=":
			ok = ok && cmp == 0
		case "!=":
			ok = ok && cmp != 0
		case ">":
			ok = ok && cmp > 0
		case ">=":
			ok = ok && cmp >= 0
		case "<":
			ok = ok && cmp < 0
		case "<=":
			ok = ok && cmp <= 0
		case "~>": // the last number that is written may grow
			ok = ok && cmp >= 0
			for i := range max(n-1, 1) {
				ok = ok && have[i] == want[i]
			}
		default:
			return false, fmt.Errorf("%q: %q compares nothing; use =, !=, >, >=, <, <= or ~>", constraint, op)
		}
	}
	return ok || version == "", nil
}

func parseVersion(s string) (v [3]int, n int, err error) {
	s, _, _ = strings.Cut(strings.TrimPrefix(strings.TrimSpace(s), "v"), "-")
	s, _, _ = strings.Cut(s, "+")
	parts := strings.Split(s, ".")
	if len(parts) > 3 {
		return v, 0, fmt.Errorf("%q is no version", s)
	}
	for i, p := range parts {
		if v[i], err = strconv.Atoi(p); err != nil || v[i] < 0 {
			return v, 0, fmt.Errorf("%q is no version", s)
		}
	}
	return v, len(parts), nil
}
