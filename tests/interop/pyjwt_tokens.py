# Prints tokens that PyJWT has signed with each algorithm, and their public keys.
import json
import os
import time

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

claims = {"sub": "pyjwt-user", "exp": time.time() + 600, "iat": time.time(), "aud": ["anyone"]}
tokens = {"HS256": jwt.encode(claims, os.environ["BETTER_AUTH_SECRET"], algorithm="HS256")}
keys = []
for algorithm, key, kind in [
    ("EdDSA", ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm),
    ("ES256", ec.generate_private_key(ec.SECP256R1()), ECAlgorithm),
    ("RS256", rsa.generate_private_key(public_exponent=65537, key_size=2048), RSAAlgorithm),
]:
    kid = f"pyjwt-{algorithm}"
    keys.append({**json.loads(kind.to_jwk(key.public_key())), "kid": kid})
    tokens[algorithm] = jwt.encode(claims, key, algorithm=algorithm, headers={"kid": kid})
print(json.dumps({"tokens": tokens, "keys": keys}))
