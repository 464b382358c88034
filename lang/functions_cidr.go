package lang

import (
	"errors"
	"fmt"
	"math/big"
	"net/netip"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
)

func prefixArg(v cty.Value) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(v.AsString())
	if err != nil {
		return p, function.NewArgErrorf(0, "%q is no address with a prefix length, as 10.0.0.0/24", v.AsString())
	}
	return p.Masked(), nil
}

func intArg(v cty.Value, i int) (*big.Int, error) {
	n, acc := v.AsBigFloat().Int(nil)
	if acc != big.Exact || n == nil {
		return nil, function.NewArgErrorf(i, "must be a whole number")
	}
	return n, nil
}

// addrAt is the address n behind the first of the prefix.
func addrAt(p netip.Prefix, n *big.Int) netip.Addr {
	b := new(big.Int).SetBytes(p.Addr().AsSlice())
	out := make([]byte, p.Addr().BitLen()/8)
	b.Add(b, n).FillBytes(out)
	a, _ := netip.AddrFromSlice(out)
	return a
}

var cidrHostFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "prefix", Type: cty.String}, {Name: "hostnum", Type: cty.Number}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefixArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		n, err := intArg(args[1], 1)
		if err != nil {
			return cty.NilVal, err
		}
		size := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
		if n.Sign() < 0 { // from the end
			n.Add(n, size)
		}
		if n.Sign() < 0 || n.Cmp(size) >= 0 {
			return cty.NilVal, function.NewArgErrorf(1, "%s has room for %s addresses", p, size)
		}
		return cty.StringVal(addrAt(p, n).String()), nil
	},
})

var cidrNetmaskFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "prefix", Type: cty.String}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefixArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		if !p.Addr().Is4() {
			return cty.NilVal, function.NewArgErrorf(0, "only IPv4 has netmasks")
		}
		mask := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), p.Bits()).Masked()
		return cty.StringVal(mask.Addr().String()), nil
	},
})

// subnet is the num-th subnet of p that is newbits longer.
func subnet(p netip.Prefix, newbits int, num *big.Int) (netip.Prefix, error) {
	bits := p.Bits() + newbits
	if newbits < 0 || bits > p.Addr().BitLen() {
		return p, fmt.Errorf("%s can't be extended by %d bits", p, newbits)
	}
	if count := new(big.Int).Lsh(big.NewInt(1), uint(newbits)); num.Sign() < 0 || num.Cmp(count) >= 0 {
		return p, fmt.Errorf("%s has %s subnets of %d more bits, numbered from 0", p, count, newbits)
	}
	return netip.PrefixFrom(addrAt(p, new(big.Int).Lsh(num, uint(p.Addr().BitLen()-bits))), bits), nil
}

var cidrSubnetFunc = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "prefix", Type: cty.String}, {Name: "newbits", Type: cty.Number}, {Name: "netnum", Type: cty.Number}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefixArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		newbits, err := intArg(args[1], 1)
		if err != nil {
			return cty.NilVal, err
		}
		num, err := intArg(args[2], 2)
		if err != nil {
			return cty.NilVal, err
		}
		if !newbits.IsInt64() || newbits.Int64() > 128 {
			return cty.NilVal, function.NewArgErrorf(1, "is too large")
		}
		s, err := subnet(p, int(newbits.Int64()), num)
		if err != nil {
			return cty.NilVal, err
		}
		return cty.StringVal(s.String()), nil
	},
})

var cidrSubnetsFunc = function.New(&function.Spec{
	Params:   []function.Parameter{{Name: "prefix", Type: cty.String}},
	VarParam: &function.Parameter{Name: "newbits", Type: cty.Number},
	Type:     function.StaticReturnType(cty.List(cty.String)),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefixArg(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		if len(args) == 1 {
			return cty.ListValEmpty(cty.String), nil
		}
		var out []cty.Value
		next := new(big.Int) // first free address, counted from p's
		for i, a := range args[1:] {
			newbits, err := intArg(a, i+1)
			if err != nil {
				return cty.NilVal, err
			}
			if !newbits.IsInt64() || newbits.Int64() < 1 || p.Bits()+int(min(newbits.Int64(), 256)) > p.Addr().BitLen() {
				return cty.NilVal, function.NewArgErrorf(i+1, "%s can't be extended by %s bits", p, newbits)
			}
			host := uint(p.Addr().BitLen() - p.Bits() - int(newbits.Int64()))
			size := new(big.Int).Lsh(big.NewInt(1), host)
			// Up to a multiple of its own size.
			num := new(big.Int).Add(next, new(big.Int).Sub(size, big.NewInt(1)))
			num.Rsh(num, host)
			s, err := subnet(p, int(newbits.Int64()), num)
			if err != nil {
				return cty.NilVal, errors.New("the prefix has no room for so many subnets")
			}
			out = append(out, cty.StringVal(s.String()))
			next.Add(new(big.Int).Lsh(num, host), size)
		}
		return cty.ListVal(out), nil
	},
})
