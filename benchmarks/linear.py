"""Print the accuracy of TF-IDF and scikit-learn's linear SVM: `python -m benchmarks.linear posts.csv`."""

import json
import sys

import pandas as pd
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

if __name__ == "__main__":
    data = pd.read_csv(sys.argv[1])
    half = len(data) // 2
    model = make_pipeline(TfidfVectorizer(), LinearSVC()).fit(data["post"][:half], data["tags"][:half])
    print(json.dumps({"accuracy": model.score(data["post"][half:], data["tags"][half:])}))
