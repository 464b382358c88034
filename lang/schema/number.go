package schema

import "math/big"

// NumberLimits says in words which numbers there are.
const NumberLimits = "numbers are 0, or from 1e-1000 to 1e1000, with either sign"

// The limits, in binary digits: 1e1000 is a little more than 2^3321.
const largestExponent, smallestExponent = 3322, -3321

// NumberFits tells whether a number is within NumberLimits. What is beyond is
// soon computed, but never written out: 1e99999999 has a hundred million digits.
func NumberFits(f *big.Float) bool {
	if f.Sign() == 0 {
		return true
	}
	exp := f.MantExp(nil)
	return !f.IsInf() && exp <= largestExponent && exp >= smallestExponent
}
