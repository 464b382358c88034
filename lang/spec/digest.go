package spec

import "strings"

// A digest stands for a sensitive value where that is not kept. It says nothing of
// the value but whether another one is the same.
const (
	digestStart = "(sensitive value, hmac-sha256 "
	digestEnd   = ")"
	digestSum   = 43 // characters of 32 bytes in base64
)

// Digest is a digest: of a value of a kind (one character), with its sum in base64.
func Digest(kind byte, sum string) string { return digestStart + string(kind) + ":" + sum + digestEnd }

// IsDigest tells whether s is a digest, and of what kind of value.
func IsDigest(s string) (kind byte, ok bool) {
	if len(s) != len(digestStart)+2+digestSum+len(digestEnd) || !strings.HasPrefix(s, digestStart) || !strings.HasSuffix(s, digestEnd) {
		return 0, false
	}
	return s[len(digestStart)], s[len(digestStart)+1] == ':'
}
