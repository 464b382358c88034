package lang

import "strings"

// IsFile tells by its name whether a file in a definition's directory is one of
// the definition's: its blocks, or values that load by themselves.
func IsFile(name string) bool {
	if strings.HasPrefix(name, ".") {
		return false
	}
	return strings.HasSuffix(name, hclSuffix) || strings.HasSuffix(name, jsonSuffix) ||
		name == "auto"+varsSuffix || strings.HasSuffix(name, ".auto"+varsSuffix)
}
