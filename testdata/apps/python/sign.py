import sys

from itsdangerous import Signer

signer = Signer("not a secret")
signed = signer.sign(sys.argv[1])
assert signer.unsign(signed).decode() == sys.argv[1]
print(signed.decode())
