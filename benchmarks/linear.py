"""Print the accuracy of TF-IDF and scikit-learn's linear SVM: `python -m benchmarks.linear posts.csv [pairs]`.

With `pairs` its vectors are those of log_tfidf, of words and pairs of words.
"""

import json
import sys

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

if __name__ == "__main__":
    data = pd.read_csv(sys.argv[1])
    half = len(data) // 2
    pairs = {"ngram_range": (1, 2), "sublinear_tf": True} if sys.argv[2:] == ["pairs"] else {}
    model = make_pipeline(TfidfVectorizer(**pairs), LinearSVC()).fit(data["post"][:half], data["tags"][:half])
    print(json.dumps({"accuracy": model.score(data["post"][half:], data["tags"][half:])}))
